"""A function's call under way, whatever protocol it came by."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.catalog import Function
from gateway.door import Door
from gateway.session import Session
from gateway.status import timed_out
from gateway.typed import untyped
from gateway.typed.awaited import Awaited
from shared.errors import MillstreamError, RequestTooLarge


class PlainCall:
    """A call whose items come serialized; close it when done.

    `await call.some()` until it gives None, or `await call.item()` where the function does not
    stream; `await call.result()` is that item as its response message.

    Args:
        door: The way in.
        function: Which.
        request: Its request message.
        session: What runs for it.
        outlet: Gets its items.

    Attributes:
        function: Which.
    """

    def __init__(
        self, door: Door, function: Function, request: Any, session: Session, outlet: Awaited
    ) -> None:
        self.function = function
        self._door = door
        self._request = request
        self._session = session
        self._outlet = outlet
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens its input was, where its worker said so."""
        summary = self._outlet.summary
        return 0 if summary is None else summary.prompt_tokens

    @property
    def request_id(self) -> str:
        """The client's name for it, or the generated one."""
        return self._session.request.request_id

    async def item(self) -> bytes:
        """The one item of a function that does not stream, serialized.

        Raises:
            MillstreamError: What the call failed with.
        """
        try:
            return await self._outlet.only()
        except RequestTooLarge as error:
            raise too_large(error, self._request) from error

    async def result(self) -> Any:
        """The response message of a function that does not stream.

        Raises:
            MillstreamError: What the call failed with.
        """
        return untyped.parsed(self.function.typed, await self.item())

    async def some(self) -> list[bytes] | None:
        """The next items, serialized; see `Awaited.some`.

        Raises:
            MillstreamError: What the call failed with.
        """
        try:
            return await self._outlet.some()
        except RequestTooLarge as error:
            raise too_large(error, self._request) from error

    def poke(self) -> None:
        """Make `some` return now, with nothing where nothing is there."""
        self._outlet.poke()

    def fail(self, error: MillstreamError) -> None:
        """End it with an error."""
        self._session.fail(error)

    def limit(self, seconds: float | None) -> None:
        """End it with DEADLINE_EXCEEDED where it takes longer; None is for ever."""
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self.fail, timed_out(seconds))

    def close(self) -> None:
        """The client is served or gone: what still runs is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        self._outlet.abandon()
        if not self._closed:
            self._closed = True
            self._door.close(self._session)


def too_large(error: RequestTooLarge, message: Any) -> RequestTooLarge:
    """The same error, with the name of the parameter that takes the most room."""
    sizes = {}
    rest = type(message)()
    rest.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        before = rest.ByteSize()
        rest.ClearField(descriptor.name)
        sizes[descriptor.name] = before - rest.ByteSize()
    field = max(sizes, key=sizes.__getitem__, default="")
    what = error.message.partition(":")[0]
    return RequestTooLarge(
        f"{what}, and {field or 'it'} is most of it: send less, or raise max_payload on the NATS "
        "server",
        field=field,
    )
