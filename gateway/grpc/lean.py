"""grpclib's connection and stream, without what only a client needs."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from grpclib.protocol import Connection
from grpclib.protocol import Stream as Http2Stream
from grpclib.utils import Wrapper

from gateway.grpc.http2 import GuardedH2
from gateway.grpc.messages import InboundBuffer


class ServerStream(Http2Stream):
    """A call's stream; making grpclib's own costs a queue and three events that nobody uses."""

    def __init__(
        self,
        connection: Connection,
        h2: GuardedH2,
        transport: asyncio.Transport,
        stream_id: int,
    ) -> None:
        self.connection = connection
        self._h2_connection = h2
        self._transport = transport
        self.wrapper = None
        self.id = stream_id
        self.buffer = InboundBuffer(partial(connection.ack, stream_id))
        self.window_updated = asyncio.Event()
        self.headers = self.trailers = None
        connection.streams_started += 1
        self.created = connection.last_stream_created = time.monotonic()


class ServerConnection(Connection):
    """grpclib's connection with our buffers; closing it leaves the peer time to read the reason."""

    _connection: GuardedH2

    def flush(self) -> None:
        """Write what h2 has ready."""
        data = self._connection.data_to_send()
        if data and not self.is_closing():
            self._transport.write(data)

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> Http2Stream:
        """Set up a stream that the client has opened."""
        assert stream_id is not None
        return ServerStream(self, self._connection, self._transport, stream_id)
