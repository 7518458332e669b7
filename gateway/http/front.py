"""What all HTTP endpoints share: the way in, the models, and the answers that are open."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.types import Receive

from gateway.access.view import View
from gateway.catalog import Catalog, Function
from gateway.door import LONGEST, Door
from gateway.link import Link
from gateway.outlet import Flusher
from gateway.ports import Outlet
from gateway.session import Session
from gateway.status import timed_out
from gateway.typed.calls import Calls
from gateway.validate import REQUEST_ID, check_pace
from millstream.v1 import inference_pb2 as pb
from shared import wire
from shared.errors import InvalidRequest, MillstreamError, UnknownModel

TIMEOUT = "x-request-timeout"
"""The header that says how many seconds a request may take."""

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


class Open(Protocol):
    """An answer under way."""

    def fail(self, error: MillstreamError) -> None:
        """End it with an error."""

    def ping(self) -> None:
        """Keep its connection open where nothing was written since the last ping."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was accepted.

    Attributes:
        request: What is queued.
        pace: Most tokens a second at which a stream of it is released, or None.
        seconds: Until the client's deadline, or None.
    """

    request: wire.Request
    pace: float | None
    seconds: float | None


class Front:
    """The HTTP side of a gateway.

    Args:
        door: The way in.
        link: The way to NATS.
        catalog: The models.
        ping_seconds: How long a stream may be silent.

    Attributes:
        view: What is told about models.
        calls: Calls functions.
        flusher: Shared by all streams.
        leaving: It says that it is not ready, and that connections end after their answers.
        draining: New requests are sent elsewhere.
        since: When it started, in seconds of the epoch.
    """

    def __init__(self, door: Door, link: Link, catalog: Catalog, *, ping_seconds: float) -> None:
        self.door = door
        self.link = link
        self.catalog = catalog
        self.view = View(catalog, door.access)
        self.calls = Calls(door, catalog)
        self.flusher = Flusher()
        self.leaving = False
        self.draining = False
        self.since = int(time.time())
        self._ping_seconds = ping_seconds
        self._open: set[Open] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.link.ready and not self.leaving

    @property
    def answering(self) -> int:
        """Answers under way."""
        return len(self._open)

    def accept(self, connection: HTTPConnection, message: pb.GenerateRequest) -> Asked:
        """Validate a request that came over HTTP.

        Raises:
            MillstreamError: What is wrong with it.
        """
        request = self.door.accept(
            message,
            request_id=connection.state.request_id,
            traceparent=connection.headers.get("traceparent", ""),
            tenant=connection.state.tenant,
        )
        return Asked(request, check_pace(message), seconds_of(connection))

    def open(self, asked: Asked, outlet: Outlet, *, paced: bool) -> Session:
        """Queue an accepted request; an answer in one piece has no pace.

        Raises:
            MillstreamError: It cannot be taken now.
        """
        pace = asked.pace if paced else None
        return self.door.open(asked.request, outlet, seconds=asked.seconds, pace=pace)

    def function(self, connection: HTTPConnection, name: str) -> Function:
        """A function that can be called, and that the client may know of.

        Raises:
            MillstreamError: There is none, as `Calls.function` says.
        """
        function = self.calls.function(name)
        if not self.door.access.visible(connection.state.tenant, function.card.name):
            raise UnknownModel(f"model {name[:200]!r} is not served here", field="model")
        return function

    def enter(self, answer: Open) -> None:
        """An answer begins."""
        self._open.add(answer)
        self._empty.clear()

    def leave(self, answer: Open) -> None:
        """An answer has ended."""
        self._open.discard(answer)
        if not self._open:
            self._empty.set()

    def fail(self, error: MillstreamError) -> None:
        """End all answers with an error."""
        for answer in list(self._open):
            answer.fail(error)

    async def wait_empty(self, seconds: float) -> bool:
        """Wait for the end of all answers; whether they ended in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def keep_open(self) -> None:
        """Ping silent streams until cancelled."""
        while True:
            await asyncio.sleep(self._ping_seconds)
            for answer in self._open:
                answer.ping()


def seconds_of(connection: HTTPConnection) -> float | None:
    """How long a request may take, or None where its headers do not say.

    Raises:
        InvalidRequest: It is no number above 0.
    """
    given = connection.headers.get(TIMEOUT)
    if given is None:
        return None
    seconds = float(given) if _SECONDS.fullmatch(given) else 0.0
    if not seconds:
        raise InvalidRequest(
            f"{TIMEOUT} is {given[:80]!r}: want seconds above 0, such as 2.5", field=TIMEOUT
        )
    return min(seconds, LONGEST)


def end_after(
    seconds: float | None, fail: Callable[[MillstreamError], None]
) -> asyncio.TimerHandle | None:
    """Fail an answer that is not complete after so many seconds; None is for ever."""
    if seconds is None:
        return None
    return asyncio.get_running_loop().call_later(seconds, fail, timed_out(seconds))


async def disconnected(receive: Receive) -> None:
    """Wait until the client of a request is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def name_of_one(request_id: str, place: int) -> str:
    """A name for one of several requests that run side by side for one of a client."""
    return f"{request_id[:56]}-{place}"


def request_id_of(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's `x-request-id` where it can be a request's name, else a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if REQUEST_ID.fullmatch(given):
                return given
    return secrets.token_hex(12)
