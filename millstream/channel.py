"""A grpclib channel that survives a draining gateway, and how its failures are told.

grpclib ends every call of a connection when the server says GOAWAY. The protocol's meaning is
another: calls under way finish, new ones go to a new connection.
"""

from __future__ import annotations

import asyncio
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from ssl import SSLContext
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import Connection, H2Protocol
from hyperframe.frame import GoAwayFrame

from shared.errors import DeadlineExceeded, FunctionError, MillstreamError, Unavailable

DEFAULT_PORT: Final = 50051
CLOSE_LIMIT: Final = 1.0

WINDOWS: Final = Configuration(
    http2_connection_window_size=2**31 - 1, http2_stream_window_size=1024 * 1024
)
"""A stream that is not read holds up itself, and not the connection's other calls."""

_CONNECTIONS = count(1)


class _Protocol(H2Protocol):
    """One connection; a GOAWAY without an error only closes it to new calls."""

    handler: Handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.lost = asyncio.Event()
        self._frames: dict[type, Any] = self.connection._connection._frame_dispatch_table
        self._fatal_goaway = self._frames[GoAwayFrame]
        self._frames[GoAwayFrame] = self._on_goaway

    def _on_goaway(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        if frame.error_code != 0:
            result: tuple[list[Any], list[Any]] = self._fatal_goaway(frame)
            return result
        self.handler.connection_lost = True  # The channel connects anew for the next call.
        for stream_id, stream in list(self.processor.streams.items()):
            if stream_id > frame.last_stream_id:
                stream.__terminated__("the gateway is stopping and did not take this call")
        return [], []

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.lost.set()
        self._frames.clear()  # It refers back to this object.


class _Details(list[Any]):
    """The details of a status that are of known types, and the whole status as it came."""

    def __init__(self, known: Any, status: bytes) -> None:
        super().__init__(known)
        self.status = status


class _DetailsCodec(ProtoStatusDetailsCodec):
    """Keeps the status: a function's details may be of any type."""

    def decode(self, status: Status, message: str | None, data: bytes) -> _Details:
        try:
            return _Details(super().decode(status, message, data), data)
        except DecodeError:
            return _Details((), b"")  # The code and the message still tell.


class DrainableChannel(Channel):
    """A channel to one gateway.

    Attributes:
        connection: A number that no other connection of the process has; 0 before the first.
        asking: Held while a function's description is asked for.
        described: What was asked, by the function's name; see `reflected.py`.
        described_by: The connection that answered.
    """

    def __init__(self, host: str, port: int, tls: SSLContext | bool) -> None:
        super().__init__(
            host, port, ssl=tls or None, status_details_codec=_DetailsCodec(), config=WINDOWS
        )
        self._all: list[_Protocol] = []
        self.connection = 0
        self.asking = asyncio.Lock()
        self.described: dict[str, Any] = {}
        self.described_by = 0

    def _protocol_factory(self) -> H2Protocol:
        self._all = [one for one in self._all if not _closed(one)]
        protocol = _Protocol(Handler(), self._config, self._h2_config)
        self._all.append(protocol)
        self.connection = next(_CONNECTIONS)
        return protocol

    def close(self) -> None:
        """Close the connection, and those that drain."""
        super().close()
        for protocol in self._all:
            if not _closed(protocol):
                protocol.processor.close()
        self._all.clear()

    async def wait_closed(self) -> None:
        """Close, and wait until it is closed: over TLS that takes the other side."""
        waiting = [protocol.lost.wait() for protocol in self._all if not _closed(protocol)]
        self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await asyncio.gather(*waiting)

    def close_from_afar(self) -> None:
        """Close it from outside its event loop, which may run elsewhere or be closed."""
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # The loop is closed: nothing can be called there any more.
            self._protocol = None
            for protocol in self._all:
                if hasattr(protocol, "connection"):
                    _close_socket(protocol.connection)
            self._all.clear()


def _close_socket(connection: Connection) -> None:
    """Close the socket alone: its transport needs the loop for that. Uvloop's are closed by it."""
    transport = getattr(connection, "_transport", None)  # It goes when the connection is closed.
    found = transport.get_extra_info("socket") if transport is not None else None
    if isinstance(found, TransportSocket):
        found._sock.close()  # type: ignore[attr-defined]


def _closed(protocol: H2Protocol) -> bool:
    return not hasattr(protocol, "connection") or protocol.connection.is_closing()


def split_target(target: str) -> tuple[str, int]:
    """`host`, `host:port` or `[v6]:port` as host and port.

    Raises:
        ValueError: The port is no number from 1 to 65535.
    """
    host, colon, port = target.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = target, str(DEFAULT_PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"target {target!r}: want HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


@asynccontextmanager
async def told(target: str) -> AsyncIterator[None]:
    """Raise what goes wrong in a call as an error of `millstream.errors`."""
    try:
        yield
    except GRPCError as error:
        raise told_as(error) from error
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed") from error
    except (StreamTerminatedError, ProtocolError) as error:
        raise Unavailable(f"the connection to {target} broke: {error}") from error
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:  # Not the network's own.
            raise DeadlineExceeded("the deadline passed") from error
        reason = error.strerror or error
        raise Unavailable(f"no gateway at {target}: {reason}", retry_after=1.0) from error


def told_as(error: GRPCError) -> MillstreamError:
    """A status as an error of `millstream.errors`; what a function raised keeps its own status."""
    from gateway.status import DOMAIN, from_grpc

    found = from_grpc(error)
    if not isinstance(found, FunctionError):
        return found
    status = RpcStatus(code=error.status.value, message=found.message)
    if isinstance(error.details, _Details):
        for detail in RpcStatus.FromString(error.details.status).details:
            info = ErrorInfo()
            if not (detail.Unpack(info) and info.domain == DOMAIN):  # Not what we added.
                status.details.append(detail)
    return FunctionError(
        found.message,
        status=status.SerializeToString(),
        code=error.status.value,
        field=found.field,
        retry_after=found.retry_after,
    )
