"""Responses that are generations: sessions are opened, the client is watched, sessions are closed.

What fails before the first event is an HTTP status; what fails later is an event of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.collected import Collected
from gateway.http.errors import renamed
from gateway.http.front import Asked, Front, disconnected, end_after
from gateway.http.sse import DIRECT, SseOutlet, SseWriter
from gateway.outlet import Flusher, Writer
from gateway.ports import Outlet, Summary, TextOnly
from gateway.session import Session
from shared.errors import MillstreamError

Refuse = Callable[[MillstreamError], Response]
MakeOutlet = Callable[[Writer, Flusher, Callable[[MillstreamError], None]], SseOutlet]


class _Shared(Outlet, Protocol):
    """An outlet of one or several sessions."""

    def finish(self, base: int, summary: Summary) -> None:
        """The session whose choices begin at `base` has ended."""

    async def run(self) -> None:
        """Deliver until the end."""

    def abandon(self) -> None:
        """The client is gone."""


class _Shifted(TextOnly):
    """One of several sessions that deliver into one outlet: its choices begin at `base`."""

    __slots__ = ("_base", "_outlet", "failed", "started")

    def __init__(self, outlet: _Shared, base: int) -> None:
        self._outlet = outlet
        self._base = base
        self.started = outlet.started
        self.failed = outlet.failed

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        *ends: Any,
    ) -> None:
        self._outlet.delta(index, ids, text, choice + self._base, attempt, logprobs, *ends)

    def finished(self, summary: Summary) -> None:
        self._outlet.finish(self._base, summary)


class Reply(Response):
    """A response that runs sessions.

    Args:
        front: What all endpoints share.
        requests: Accepted ones; their choices are numbered through.
        refuse: Makes the answer to a failure.
        names: What the protocol calls the fields of `GenerateRequest`.
    """

    background: BackgroundTask | None = None
    paced: ClassVar[bool] = False
    """Whether it is a stream, which a request may ask to be released at a pace."""

    def __init__(
        self,
        front: Front,
        requests: Sequence[Asked],
        refuse: Refuse,
        names: Mapping[str, str] | None,
    ) -> None:
        self._front = front
        self._requests = requests
        self._refuse = refuse
        self._names = names
        self._sessions: list[Session] = []

    def fail(self, error: MillstreamError) -> None:
        """End it with an error."""
        for session in self._sessions:
            session.fail(error)

    def ping(self) -> None:
        """Nothing was written yet: the client waits for the whole."""

    async def _run(self, outlet: _Shared, receive: Receive) -> None:
        """Open the sessions and deliver until they end or the client leaves.

        Raises:
            MillstreamError: What one failed with.
        """
        loop = asyncio.get_running_loop()
        watching = loop.create_task(_watch(receive, outlet))
        limit = end_after(self._requests[0].seconds, self.fail)
        self._front.enter(self)
        try:
            base = 0
            for asked in self._requests:
                own: Outlet = outlet if len(self._requests) == 1 else _Shifted(outlet, base)
                self._sessions.append(self._front.open(asked, own, paced=self.paced))
                base += asked.request.sampling.n
            # A task of its own: each wake-up of this one passes through all layers around it.
            await loop.create_task(outlet.run())
        except MillstreamError as error:
            raise renamed(error, self._names) from error
        finally:
            watching.cancel()
            if limit is not None:
                limit.cancel()
            for session in self._sessions:
                self._front.door.close(session)
            self._front.leave(self)


class WholeReply(Reply):
    """An answer in one piece.

    Args:
        front: What all endpoints share.
        requests: Accepted ones.
        refuse: Makes the answer to a failure.
        names: What the protocol calls the fields of `GenerateRequest`.
        tokens: Keep the tokens one by one.
        body: Makes the body.
    """

    def __init__(
        self,
        front: Front,
        requests: Sequence[Asked],
        refuse: Refuse,
        names: Mapping[str, str] | None,
        *,
        tokens: bool,
        body: Callable[[Collected], dict[str, Any]],
    ) -> None:
        super().__init__(front, requests, refuse, names)
        choices = sum(asked.request.sampling.n for asked in requests)
        self._collected = Collected(choices, len(requests), tokens=tokens)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        response: Response
        try:
            await self._run(self._collected, receive)
        except MillstreamError as error:
            response = self._refuse(error)
        else:
            if self._collected.gone:
                return
            response = JSONResponse(self._body(self._collected))
        await response(scope, receive, send)


class EventReply(Reply):
    """An answer as server-sent events.

    Args:
        front: What all endpoints share.
        requests: Accepted ones.
        refuse: Makes the answer to a failure before the first event.
        names: What the protocol calls the fields of `GenerateRequest`.
        make: Makes the outlet.
    """

    paced = True

    def __init__(
        self,
        front: Front,
        requests: Sequence[Asked],
        refuse: Refuse,
        names: Mapping[str, str] | None,
        *,
        make: MakeOutlet,
    ) -> None:
        super().__init__(front, requests, refuse, names)
        self._make = make
        self._outlet: SseOutlet | None = None

    def ping(self) -> None:
        """Write a comment where nothing was written since the last call."""
        if self._outlet is not None:
            self._outlet.ping()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        writer = SseWriter(send, scope[DIRECT])
        self._outlet = outlet = self._make(writer, self._front.flusher, self.fail)
        outlet.sessions = self._sessions
        try:
            await self._run(outlet, receive)
        except MillstreamError as error:
            if not writer.started:
                await self._refuse(error)(scope, receive, send)
                return
            await writer.send([outlet.error_event(error)])
        if writer.started:
            await writer.end()


async def _watch(receive: Receive, outlet: _Shared) -> None:
    await disconnected(receive)
    outlet.abandon()
