"""A tiny service and two kinds of client for it: grpcio's, and one that speaks frames by hand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

from gateway.server import GrpcServer, Limits
from tests.eventually import until

GENEROUS = 2**31 - 1


async def eventually(holds: Callable[[], bool], within: float = 30.0) -> None:
    """Poll until it holds, often enough to see what passes; fail after `within` seconds."""
    await until(holds, "it holds", within, every=0.005)


class Probe:
    """A service under test: bytes in, bytes out, and a typed method.

    Attributes:
        release: Lets `Hold` end.
        held: Calls of `Hold` under way.
        cancelled: Calls of `Hold` that were cancelled.
        raises: What `Fail` raises.
        stream: Handles `Stream`; a test sets it.
    """

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.held = 0
        self.cancelled = 0
        self.raises: BaseException = RuntimeError("not set")
        self.stream: Callable[[Any], Any] = self._hold

    def __mapping__(self) -> dict[str, Handler]:
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/test.Probe/Echo": Handler(self._echo, one, bytes, bytes),
            "/test.Probe/Typed": Handler(self._echo, one, StringValue, StringValue),
            "/test.Probe/Silent": Handler(self._silent, one, bytes, bytes),
            "/test.Probe/Fail": Handler(self._fail, one, bytes, bytes),
            "/test.Probe/Hold": Handler(self._hold, many, bytes, bytes),
            "/test.Probe/Stream": Handler(self._stream, many, bytes, bytes),
            "/test.Probe/Join": Handler(self._join, Cardinality.STREAM_UNARY, bytes, bytes),
        }

    async def _echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def _silent(self, stream: Any) -> None:
        await stream.recv_message()

    async def _fail(self, stream: Any) -> None:
        await stream.recv_message()
        raise self.raises

    async def _hold(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(b"held")
        self.held += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.held -= 1
        await stream.send_message(b"released")

    async def _stream(self, stream: Any) -> None:
        await stream.recv_message()
        await self.stream(stream)

    async def _join(self, stream: Any) -> None:
        await stream.send_message(b"".join([part async for part in stream]))


@asynccontextmanager
async def serving(
    *services: Any, limits: Limits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[GrpcServer, int]]:
    server = GrpcServer(services, limits=limits, ssl=tls)
    port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.close()


def channel(port: int, **options: int) -> grpc.aio.Channel:
    named = [(f"grpc.{name}", value) for name, value in options.items()]
    # A pool of its own: connections of one process to one address are shared otherwise.
    named.append(("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=named)


def framed(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A length-prefixed message, or one whose prefix lies."""
    size = len(message) if length is None else length
    return bytes([compressed]) + size.to_bytes(4) + message


class Peer:
    """A client that sends the frames that it is told to, and notes what comes back.

    Attributes:
        h2: The client's side of the connection; `flush` sends what it has ready.
        events: All events so far.
        ended: Whether the server has closed the socket.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True, header_encoding="utf-8", validate_outbound_headers=False
            )
        )
        self.events: list[Event] = []
        self.ended = False
        self.acknowledging = False
        self._acknowledged: set[int] = set()
        self._reader = reader
        self._writer = writer
        self._task = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, port: int, window: int = GENEROUS, *, connection_window: int = GENEROUS
    ) -> AsyncIterator[Peer]:
        """Connect with these windows; `acknowledge` gives back what was received."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        peer.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        peer.h2.local_settings.acknowledge()
        peer.h2.initiate_connection()
        if connection_window > 65535:
            peer.h2.increment_flow_control_window(connection_window - 65535)
        peer.flush()
        try:
            yield peer
        finally:
            peer._task.cancel()
            peer._writer.transport.abort()

    def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        """Send bytes past h2."""
        self._writer.write(data)

    def call(
        self,
        path: str,
        data: bytes | None = framed(b""),
        headers: Mapping[str, str | None] = MappingProxyType({}),
        *,
        end: bool = True,
    ) -> int:
        """Open a call; `headers` are added to the usual ones, and None takes one away."""
        usual: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        sent = [
            (name, value) for name, value in (usual | dict(headers)).items() if value is not None
        ]
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, sent, end_stream=data is None and end)
        if data is not None:
            self.h2.send_data(stream_id, data, end_stream=end)
        self.flush()
        return stream_id

    def data(self, stream_id: int) -> bytes:
        """All data received on a stream."""
        return b"".join(e.data for e in self.of(DataReceived) if e.stream_id == stream_id)

    def acknowledge(self) -> None:
        """Give the windows back for all data not acknowledged yet, and for what comes."""
        self.acknowledging = True
        for event in self.of(DataReceived):
            if id(event) not in self._acknowledged:
                self._acknowledged.add(id(event))
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def status(self, stream_id: int) -> dict[str, str]:
        """All headers and trailers of a call's answer, once it is complete."""
        await eventually(lambda: any(e.stream_id == stream_id for e in self.of(StreamEnded)))
        answer: dict[str, str] = {}
        for event in self.events:
            if (
                isinstance(event, ResponseReceived | TrailersReceived)
                and event.stream_id == stream_id
            ):
                answer |= {str(name): str(value) for name, value in event.headers}
        return answer

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(2**16):
                self.events.extend(self.h2.receive_data(data))
                if self.acknowledging:
                    self.acknowledge()
                self.flush()
        except ConnectionError:
            pass
        finally:
            self.ended = True
