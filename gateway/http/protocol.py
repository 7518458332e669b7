"""uvicorn's HTTP/1.1 made fit for strangers: bounds for headers, slow requests, stalled readers."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_CONNECTIONS = 4096
"""At a time; one more is closed at once."""
MOST_HEADER_BYTES = 64 * 1024
"""Of a request, its address included; one that does not end is refused within a read beyond."""
HEADER_SECONDS = 10.0
"""For a request's headers, and for the first byte of a connection."""
BODY_SECONDS = 30.0
"""Silence inside a body."""
STALL_SECONDS = 30.0
"""How long a reader may take nothing while its buffers are full."""

_CLOSE = b"content-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _clock: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        if len(self.connections) >= MOST_CONNECTIONS:
            transport.abort()
        super().connection_made(transport)
        self._wait(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._wait(None)
        self._read_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a read, and refuse headers that do not end."""
        began_before = self._in_headers
        super().data_received(data)
        if began_before and self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.transport.is_closing():
            return  # One before it, of the same read, was refused.
        self._in_headers = True
        self._header_bytes = 0
        self._wait(HEADER_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are here."""
        if self.transport.is_closing():
            return
        self._in_headers = False
        self._wait(BODY_SECONDS)
        if self._too_long():
            self._refuse(b"431 Request Header Fields Too Large")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body is here."""
        if self.transport.is_closing():
            return
        self._wait(BODY_SECONDS)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is here."""
        if self.transport.is_closing():
            return
        self._wait(None)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over."""
        if self.transport.is_closing():
            return
        self._wait(None)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The buffers to the client are full."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._read_on()
        super().resume_writing()

    def _too_long(self) -> bool:
        """Whether the headers that are here take more than allowed."""
        lines = sum([len(name) + len(value) + 4 for name, value in self.headers])
        return len(self.url) + lines > MOST_HEADER_BYTES

    def _wait(self, seconds: float | None) -> None:
        """Close the connection unless this is called again in time; None waits for nothing."""
        if self._clock is not None:
            self._clock.cancel()
        self._clock = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._clock = None
        cycle: RequestResponseCycle | None = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if self.flow.read_paused or (self._in_headers and answering):
            self._wait(HEADER_SECONDS)  # We do not read, or what is answered matters more.
        elif self._in_headers or answering:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + _CLOSE)
        self.transport.close()

    def _watch_reader(self) -> None:
        """Drop the connection where the client takes nothing for too long."""
        self._unsent = self._buffered()
        self._stall = self.loop.call_later(STALL_SECONDS, self._check_reader)

    def _check_reader(self) -> None:
        if self._buffered() < self._unsent:
            self._watch_reader()
        else:
            self._stall = None
            self.transport.abort()

    def _read_on(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _buffered(self) -> int:
        return cast(asyncio.WriteTransport, self.transport).get_write_buffer_size()
