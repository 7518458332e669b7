"""What a peer may do, the budget that says when it is too much, and counts of what was refused."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server grants to its peers; every time is in seconds.

    Attributes:
        max_streams: Concurrent calls on one connection; advertised, and refused beyond.
        max_message_bytes: Largest request message, after decompression.
        max_connections: Connections at a time; one more is closed at once.
        max_header_bytes: Largest header list of a call, counted as HTTP/2 does: name, value
            and 32 bytes an entry. Four times as much ends the connection.
        ping_budget: PING and SETTINGS frames a connection may send in a burst while no data
            flows to it; a tenth of it comes back every second.
        reset_budget: Calls that a connection may open and reset within a second, before they
            are answered; a fifth of it comes back every second.
        keepalive_interval: Silence after which the peer is asked whether it is there.
        keepalive_timeout: Wait for its answer before the connection is dropped.
        max_connection_age: Age at which a connection is drained so that its client balances
            anew, or None.
        stream_window: Bytes of request that a call may send ahead of its handler.
        connection_window: The same over all calls of a connection.
    """

    max_streams: int = 4096
    max_message_bytes: int = 4 * 2**20
    max_connections: int = 4096
    max_header_bytes: int = 16 * 2**10
    ping_budget: int = 100
    reset_budget: int = 1000
    keepalive_interval: float = 10.0
    keepalive_timeout: float = 5.0
    max_connection_age: float | None = None
    stream_window: int = 256 * 2**10
    connection_window: int = 4 * 2**20

    def __post_init__(self) -> None:
        """Raise ValueError where a limit is not positive or a window not one of HTTP/2's."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise ValueError(f"{field.name} is {value} and must be above 0")
        for name in ("stream_window", "connection_window"):
            if not 2**16 - 1 <= getattr(self, name) < 2**31:
                raise ValueError(f"{name} is {getattr(self, name)}: allowed is 65535 to 2^31-1")


@dataclass(slots=True)
class ServerCounters:
    """What happened since the server started; plain numbers that only grow.

    Attributes:
        connections: Accepted by the socket, refused ones included.
        connections_refused: Over the limit, or while draining.
        connections_garbage: Ended because they did not speak HTTP/2.
        connections_timed_out: Dropped because the peer did not answer.
        connections_aged: Drained because of their age.
        connections_unread: Dropped because the peer left answers to its frames unread.
        ping_floods: Ended because of PING or SETTINGS frames.
        rapid_resets: Ended because of calls opened and reset at once.
        header_floods: Ended because of headers far over the limit.
        calls: Begun, refused ones included.
        calls_cancelled: Reset by the client, or lost with its connection.
        streams_refused: Over the limit of a connection, or after its last GOAWAY.
        refused_content_type: Not gRPC: content-type or te.
        refused_method: Unknown, or not POST.
        refused_header_size: Metadata over the limit.
        refused_timeout: Malformed grpc-timeout.
        refused_metadata: Malformed binary metadata.
        refused_encoding: Unknown grpc-encoding.
        refused_deadline: Passed on arrival.
        refused_message_size: Over the limit, before or after decompression.
        refused_message: Malformed, cut off, or not there.
        deadlines_exceeded: Ended by their deadline while they ran.
        handler_errors: Ended with INTERNAL.
    """

    connections: int = 0
    connections_refused: int = 0
    connections_garbage: int = 0
    connections_timed_out: int = 0
    connections_aged: int = 0
    connections_unread: int = 0
    ping_floods: int = 0
    rapid_resets: int = 0
    header_floods: int = 0
    calls: int = 0
    calls_cancelled: int = 0
    streams_refused: int = 0
    refused_content_type: int = 0
    refused_method: int = 0
    refused_header_size: int = 0
    refused_timeout: int = 0
    refused_metadata: int = 0
    refused_encoding: int = 0
    refused_deadline: int = 0
    refused_message_size: int = 0
    refused_message: int = 0
    deadlines_exceeded: int = 0
    handler_errors: int = 0

    def count(self, name: str) -> None:
        """Add one to the counter of that name."""
        setattr(self, name, getattr(self, name) + 1)


class TokenBucket:
    """A budget that refills with time.

    Args:
        burst: Tokens at the start, and the most it holds.
        rate: Tokens that come back per second.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._at: float | None = None

    def spend(self, now: float) -> bool:
        """Take a token; False where none is left."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
