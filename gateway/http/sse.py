"""Server-sent events over ASGI: an outlet whose messages are written as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quote

from starlette.types import Send

from gateway.outlet import Flusher, Writer
from gateway.pieces import PieceOutlet
from gateway.ports import Summary
from gateway.session import Session
from shared.errors import MillstreamError

__all__ = ["DIRECT", "PING", "UNBUFFERED", "SseOutlet", "SseWriter", "quote"]

DIRECT = "millstream.send"
"""Where a request's scope holds the server's own `send`."""
PING = b": ping\n\n"

UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""What lets each piece of a stream through at once, past caches and proxies."""
_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), *UNBUFFERED)


class SseWriter:
    """The body of one response; its headers go out with the first event.

    Args:
        send: ASGI's, for the headers.
        direct: The server's own, for the body: what lies between only looks at the headers.
        headers: Of the response; they may be set until the first event.

    Attributes:
        started: Whether the headers are out, and with them the status 200.
    """

    __slots__ = ("_direct", "_send", "headers", "started")

    def __init__(
        self, send: Send, direct: Send, headers: Sequence[tuple[bytes, bytes]] = _HEADERS
    ) -> None:
        self._send = send
        self._direct = direct
        self.headers = headers
        self.started = False

    def write(self, messages: Sequence[bytes]) -> bool:
        """Take nothing: ASGI can only be awaited."""
        return False

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write all events as one chunk; waits while the client does not read."""
        if not self.started:
            self.started = True
            start = {"type": "http.response.start", "status": 200, "headers": list(self.headers)}
            await self._send(start)
        body = messages[0] if len(messages) == 1 else b"".join(messages)
        await self._direct({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class SseOutlet(PieceOutlet):
    """An answer as events; subclasses say what an event looks like.

    Several sessions may deliver into one answer: the choices of each begin at a base of its own.

    Args:
        writer: The response.
        flusher: Shared by all clients.
        overflowed: Called when the buffer is full.
        sessions: How many sessions it answers.
    """

    __slots__ = ("_pinged", "_remaining", "sessions")

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        sessions: int = 1,
    ) -> None:
        super().__init__(writer, flusher, overflowed)
        self._remaining = sessions
        self._pinged = 0
        self.sessions: Sequence[Session] = ()

    def ping(self) -> None:
        """Write a comment where nothing came since the last call."""
        if self.idle and self.tokens == self._pinged:
            self._put(PING)
        self._pinged = self.tokens

    def error_event(self, error: MillstreamError) -> bytes:
        """What a stream that has begun says of its failure."""
        raise NotImplementedError

    def started(self, worker: str) -> None:
        """A worker took the request."""

    def finished(self, summary: Summary) -> None:
        """The only session has ended."""
        self.finish(0, summary)

    def finish(self, base: int, summary: Summary) -> None:
        """The session whose choices begin at `base` has ended."""
        self._remaining -= 1
        self._close(base, summary)
        if not self._remaining:
            self._last()
            self._end()

    def _close(self, base: int, summary: Summary) -> None:
        """Say how a session's choices ended."""
        raise NotImplementedError

    def _last(self) -> None:
        """Say what comes after all of them."""
