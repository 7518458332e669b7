"""The least HTTP/2 that a gRPC load client needs: frames written by hand, answers kept as bytes.

A client library would cost more than the servers it measures. Here a DATA frame costs a slice and
two appends while the load runs; what the bytes mean is found out afterwards (`benchmarks.client`).
Flow-control windows are opened to 2 GiB at the start and never again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from struct import Struct
from typing import cast

from hpack import Decoder, Encoder

_FRAME = Struct(">BHBBI")
_SETTING = Struct(">HI")
_PREFIX = Struct(">BI")
_WINDOW = 2**31 - 1
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4


class Answer:
    """What came back on one stream.

    Attributes:
        sent_at: When the request was written (`time.perf_counter`).
        times: When each DATA frame was read.
        frames: Their payloads.
        ended_at: When the stream ended, or None.
        reset: Whether it was reset.
    """

    __slots__ = ("ended_at", "frames", "reset", "sent_at", "times")

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.times: list[float] = []
        self.frames: list[bytes] = []
        self.ended_at: float | None = None
        self.reset = False


class Http2Client(asyncio.Protocol):
    """One connection.

    Args:
        path: The method that is called.
        on_end: Called with each answer that is complete.

    Attributes:
        answers: By stream, in the order of their requests.
        ready: Resolved once the server has greeted.
        blocks: Header blocks received, in order, with the stream they belong to.
    """

    def __init__(self, path: str, on_end: Callable[[Answer], None]) -> None:
        self.answers: dict[int, Answer] = {}
        self.blocks: list[tuple[int, bytes]] = []
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_end = on_end
        self._rest = b""
        self._next = 1
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        encoder = Encoder()
        # The first block fills the peer's table; every later one is its six indices.
        self._headers = [encoder.encode(headers), encoder.encode(headers)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, with windows wide open."""
        transport = self._transport = cast(asyncio.Transport, transport)
        settings = _SETTING.pack(2, 0) + _SETTING.pack(4, _WINDOW)
        transport.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(_SETTINGS, 0, 0, settings)
            + frame(8, 0, 0, (_WINDOW - 65535).to_bytes(4))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for the greeting."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed by the server"))

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def call(self, message: bytes, times: int = 1) -> None:
        """Send a request on each of that many new streams, in one write."""
        body = _PREFIX.pack(0, len(message)) + message
        parts = []
        now = time.perf_counter()
        for _ in range(times):
            stream, self._next = self._next, self._next + 2
            self.answers[stream] = Answer(now)
            parts.append(frame(_HEADERS, _END_HEADERS, stream, self._headers[stream > 1]))
            parts.append(frame(_DATA, _END_STREAM, stream, body))
        self._transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        """Take frames apart and keep what they carry."""
        now = time.perf_counter()
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while end - position >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, position)
            stop = position + 9 + (high << 16 | low)
            if stop > end:
                break
            if kind == _DATA:
                answer = self.answers[stream]
                answer.times.append(now)
                answer.frames.append(data[position + 9 : stop])
                if flags & _END_STREAM:
                    self._end(stream, now)
            else:
                self._control(kind, flags, stream, data[position + 9 : stop], now)
            position = stop
        self._rest = data[position:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if kind == _HEADERS:
            self.blocks.append((stream, payload))
            if flags & _END_STREAM:
                self._end(stream, now)
        elif kind == _RST_STREAM:
            self.answers[stream].reset = True
            self._end(stream, now)
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, _ACK, 0, b""))
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise ConnectionError(f"the server goes away: {payload[8:].decode(errors='replace')}")

    def _end(self, stream: int, now: float) -> None:
        answer = self.answers[stream]
        if answer.ended_at is None:
            answer.ended_at = now
            self._on_end(answer)

    def statuses(self) -> dict[int, str]:
        """The gRPC status by stream, with its message where it is not 0."""
        decoder = Decoder()
        found: dict[int, str] = {}
        for stream, block in self.blocks:
            headers = {str(name): str(value) for name, value in _decoded(decoder, block)}
            if "grpc-status" in headers:
                found[stream] = (
                    f"{headers['grpc-status']} {headers.get('grpc-message', '')}".strip()
                )
        return found


def messages(frames: list[bytes], times: list[float]) -> list[tuple[float, bytes]]:
    """Take gRPC's length-prefixed messages out of DATA frames, each with its time of arrival."""
    found: list[tuple[float, bytes]] = []
    rest = b""
    for now, frame in zip(times, frames, strict=True):
        data = rest + frame if rest else frame
        position, end = 0, len(data)
        while end - position >= 5:
            _, size = _PREFIX.unpack_from(data, position)
            if position + 5 + size > end:
                break
            found.append((now, data[position + 5 : position + 5 + size]))
            position += 5 + size
        rest = data[position:]
    if rest:
        raise ValueError(f"{len(rest)} bytes are left over at the end of a stream")
    return found


def _decoded(decoder: Decoder, block: bytes) -> list[tuple[str, str]]:
    return [(str(header[0]), str(header[1])) for header in decoder.decode(block)]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    size = len(payload)
    return _FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload
