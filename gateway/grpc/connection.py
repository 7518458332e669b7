"""One client connection: accepted or refused, kept alive, drained, and closed on abuse."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import cast

from grpclib.config import Configuration
from grpclib.protocol import EventsProcessor, H2Protocol
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    Event,
    PingAckReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from gateway.grpc.calls import Calls, ServerState
from gateway.grpc.http2 import MAX_STREAM_ID, HostilePeer
from gateway.grpc.inbound import QuickH2
from gateway.grpc.lean import ServerConnection
from gateway.grpc.outgoing import JoinedTransport

log = logging.getLogger(__name__)

LINGER = 0.5
"""Seconds between the last GOAWAY and the end of the socket, so that the peer reads why."""

MAX_UNREAD = 4 * 2**20
"""Bytes of answers that a peer may leave unread; flow control keeps honest ones far below."""

FLUSH = 30.0
"""Seconds that an honest peer gets to read what is written when its connection ends."""

DRAIN_WAIT = 1.0
"""Seconds that a peer gets to see the first GOAWAY of a drain before the final one."""

_CONFIG = Configuration().__for_server__()
_KEEPALIVE = b"keepaliv"
_DRAIN = b"draining"


class ServerEvents(EventsProcessor):
    """Acts on what h2 reports; unknown frames are ignored, as HTTP/2 demands."""

    def __init__(self, protocol: GrpcProtocol) -> None:
        super().__init__(protocol.calls, protocol.connection)
        self._protocol = protocol
        self._window_opened = False

    def process(self, event: Event) -> None:
        """Act on one event."""
        process = getattr(self, "processors", {}).get(type(event))
        if process is not None:
            process(event)

    def wake(self) -> None:
        """Let senders go on after all events of a read: once, however many updates came."""
        if self._window_opened:
            self._window_opened = False
            for stream in self.streams.values():
                stream.window_updated.set()

    def process_window_updated(self, event: WindowUpdated) -> None:
        """Note that there is room on the connection, or wake the stream that has room."""
        if event.stream_id == 0:
            self._window_opened = True
        else:
            super().process_window_updated(event)

    def process_trailers_received(self, event: TrailersReceived) -> None:
        """A gRPC request has no use for trailers; that it ends is an event of its own."""

    def process_stream_reset(self, event: StreamReset) -> None:
        """End the call that the client has reset."""
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.window_updated.set()  # whoever waits for room learns that it has ended
        super().process_stream_reset(event)

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        """The client has seen the first GOAWAY of a drain."""
        if event.ping_data == _DRAIN:
            self._protocol.finish_drain()

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        """Let the calls of a client that leaves in peace finish."""
        if event.error_code == ErrorCodes.NO_ERROR:
            self._protocol.finish_drain()
        else:
            self._protocol.leave()


class GrpcProtocol(H2Protocol):
    """The asyncio protocol of one connection.

    Attributes:
        calls: The calls of the connection.
        lost: Resolved when the socket is gone.
        drained: Resolved when no new call is taken any more.
    """

    connection: ServerConnection
    processor: ServerEvents

    def __init__(self, state: ServerState) -> None:
        self.calls = Calls(state, self._on_idle)
        super().__init__(self.calls, _CONFIG, H2Configuration(client_side=False))
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._heard_at = self._asked_at = self._loop.time()
        self._deaf = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.drained: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or end it where there are too many."""
        state = self._state
        self._transport = JoinedTransport(cast(asyncio.Transport, transport))
        self._h2 = QuickH2(state.limits)
        self.connection = ServerConnection(self._h2, self._transport, config=_CONFIG)
        self.processor = ServerEvents(self)
        state.counters.connections += 1
        if state.draining or len(state.connections) >= state.limits.max_connections:
            state.counters.connections_refused += 1
            self._deaf = True
            self._transport.abort()
            return
        state.connections.add(self)
        self.connection.flush()
        self._after(state.limits.keepalive_interval, self._keepalive)
        if (age := state.limits.max_connection_age) is not None:
            # Spread, so that clients which came together do not come back together.
            self._after(age * random.uniform(0.9, 1.1), self._retire)

    def data_received(self, data: bytes) -> None:
        """Feed what the peer sent, and end the connection where it is hostile or broken."""
        if self._deaf:
            return
        self._heard_at = self._loop.time()
        refused = self._h2.streams_refused
        try:
            events = self._h2.receive_data(data)
        except HostilePeer as error:
            self._state.counters.count(error.counter)
            self._hang_up(str(error))
        except ProtocolError as error:
            self._state.counters.count(_counter(error))
            self._hang_up(str(error))
        except Exception:  # a parser's bug costs one connection, not the server
            log.exception("a peer's bytes broke the HTTP/2 parser")
            self._state.counters.connections_garbage += 1
            self._h2.close_connection(ErrorCodes.INTERNAL_ERROR)
            self._hang_up("unreadable")
        else:
            self.connection.flush()
            for event in events:
                self.processor.process(event)
            self.processor.wake()
            self.connection.flush()
        self._state.counters.streams_refused += self._h2.streams_refused - refused
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._state.counters.connections_unread += 1
            self._transport.abort()

    def drain(self) -> None:
        """Ask the client to take new calls elsewhere; those on their way are still served."""
        if self._deaf or self._h2.refusing:
            return
        self._h2.goaway(MAX_STREAM_ID)
        self._h2.ping(_DRAIN)
        self.connection.flush()
        self._after(DRAIN_WAIT, self.finish_drain)

    def finish_drain(self) -> None:
        """Take no new call any more; the connection ends with its last open one."""
        if self._deaf or self._h2.refusing:
            return
        self._h2.refusing = True
        self._h2.goaway(self._h2.highest_inbound_stream_id)
        self.connection.flush()
        if not self.drained.done():
            self.drained.set_result(None)
        if self.calls.idle:
            self._on_idle()

    def leave(self) -> None:
        """End the connection now; what is written already still goes out."""
        self._deaf = True
        self.calls.close()
        self._transport.close()
        self._after(FLUSH, self._transport.abort)

    def abort(self) -> None:
        """Drop the connection with whatever is unsent."""
        self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the calls of a connection that is gone."""
        self._deaf = True
        self._state.connections.discard(self)
        for timer in self._timers.values():
            timer.cancel()
        self.connection.write_ready.set()  # whoever waits for room learns that it has ended
        for stream in self.processor.streams.values():
            stream.window_updated.set()
        self.processor.close(reason="Connection lost")
        for future in (self.lost, self.drained):
            if not future.done():
                future.set_result(None)

    def _on_idle(self) -> None:
        """Close a drained connection; its client does so first where it reads the GOAWAY."""
        if self._h2.refusing and not self._deaf and (self.calls.empty or not self._state.draining):
            self._after(LINGER, self.leave)

    def _hang_up(self, why: str) -> None:
        """Tell a hostile or broken peer and stop listening; its calls end at once."""
        log.info("closing the connection of %s: %s", self.connection.get_peer().addr(), why)
        self._deaf = True
        self.connection.flush()
        self.calls.close()
        self._after(LINGER, self.abort)

    def _keepalive(self) -> None:
        silence = self._loop.time() - self._heard_at
        limits = self._state.limits
        if self._deaf:
            return
        if silence < limits.keepalive_interval:
            self._after(limits.keepalive_interval - silence, self._keepalive)
        else:
            self._asked_at = self._loop.time()
            self._h2.ping(_KEEPALIVE)
            self.connection.flush()
            self._after(limits.keepalive_timeout, self._check_alive)

    def _check_alive(self) -> None:
        if self._deaf:
            return
        if self._heard_at >= self._asked_at:
            self._keepalive()
            return
        log.info("%s does not answer", self.connection.get_peer().addr())
        self._state.counters.connections_timed_out += 1
        self._transport.abort()

    def _retire(self) -> None:
        self._state.counters.connections_aged += 1
        self.drain()

    def _after(self, delay: float, callback: Callable[[], None]) -> None:
        """Call later; a new time for the same callback replaces the old one."""
        name = callback.__name__
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay, callback)


def _counter(error: ProtocolError) -> str:
    oversized = error.error_code is ErrorCodes.ENHANCE_YOUR_CALM
    return "header_floods" if oversized else "connections_garbage"
