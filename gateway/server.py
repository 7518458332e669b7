"""The gRPC server: starts, drains, closes; what happens on a connection is in `gateway.grpc`."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from ssl import SSLContext
from typing import Protocol

from grpclib.const import Handler
from grpclib.events import _DispatchServerEvents

from gateway.grpc.calls import ServerState
from gateway.grpc.connection import LINGER, GrpcProtocol
from gateway.grpc.headers import Metadata
from gateway.grpc.limits import Limits, ServerCounters

__all__ = ["GrpcServer", "Limits", "ServerCounters", "Service"]

log = logging.getLogger(__name__)

BACKLOG = 1024
HANDSHAKE_TIMEOUT = 10.0
END_TIMEOUT = 1.0
"""Seconds that handlers get, after they are cancelled, to let go."""


class Service(Protocol):
    """What grpclib's plugin generates: handlers by path.

    A service whose calls never end by themselves sets `background` to True, and `drain` does not
    wait for them.
    """

    def __mapping__(self) -> dict[str, Handler]:
        """`/package.Service/Method` to its handler."""
        ...


class GrpcServer:
    """A gRPC server over one port.

    `grpclib.events.listen` takes it for grpclib's own, for interceptors such as authentication.

    Args:
        services: What it serves at the start; `add` and `remove` change it while it runs.
        limits: What peers are granted.
        ssl: For TLS; its ALPN list becomes `h2`.
    """

    def __init__(
        self,
        services: Iterable[Service],
        *,
        limits: Limits | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self.__dispatch__ = _DispatchServerEvents()
        self._state = ServerState(limits or Limits(), ServerCounters(), self.__dispatch__)
        self._ssl = ssl
        self._server: asyncio.Server | None = None
        for service in services:
            self.add(service)

    @property
    def counters(self) -> ServerCounters:
        """What happened since the start."""
        return self._state.counters

    @property
    def calls_open(self) -> int:
        """Calls being served, without those of background services."""
        return len(self._state.calls)

    def add(self, service: Service) -> None:
        """Serve a service's methods from now on; replaces methods of the same path."""
        methods = service.__mapping__()
        self._state.methods.update(methods)
        if getattr(service, "background", False):
            self._state.background.update(methods)

    def remove(self, service: Service) -> None:
        """Stop serving a service's methods; open calls go on."""
        for path in service.__mapping__():
            self._state.methods.pop(path, None)
            self._state.background.discard(path)

    def admit_by(self, check: Callable[[str, Metadata], None]) -> None:
        """Refuse what `check` raises for; it gets the path, and metadata that it may change."""
        self._state.admit = check

    def fall_back(self, find: Callable[[str], Handler | None]) -> None:
        """Ask for a handler where a path is not served; None answers UNIMPLEMENTED."""
        self._state.unknown = find

    async def start(self, host: str, port: int, reuse_port: bool = False) -> int:
        """Listen and serve.

        Args:
            host: Address or name to listen at.
            port: Port, or 0 for a free one.
            reuse_port: Share the port with other processes that ask for it too.

        Returns:
            The port that is listened at.

        Raises:
            OSError: It cannot listen there; the message names host and port.
        """
        if self._ssl is not None:
            self._ssl.set_alpn_protocols(["h2"])
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GrpcProtocol(self._state),
                host,
                port,
                backlog=BACKLOG,
                ssl=self._ssl,
                ssl_handshake_timeout=None if self._ssl is None else HANDSHAKE_TIMEOUT,
                reuse_port=reuse_port or None,
            )
        except OSError as error:
            raise _explain(error, host, port) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def drain(self, grace: float) -> None:
        """Send new calls elsewhere and let open ones finish.

        No connection is accepted any more, and every client gets a GOAWAY, then, once it has seen
        that, a final one. Calls of background services are not waited for.

        Args:
            grace: Seconds after which it returns though calls are open; `close` ends them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._state.draining = True
        self._stop_listening()
        connections = list(self._state.connections)
        for connection in connections:
            connection.drain()
        if connections:
            await asyncio.wait([c.drained for c in connections], timeout=grace)
        while self._state.calls and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._state.calls, timeout=left)
        # The last answers may still be in our buffers; a connection ends when they are out.
        idle = [connection for connection in connections if connection.calls.empty]
        await _all_lost(idle, max(0.0, deadline - loop.time()))

    async def close(self) -> None:
        """End open calls with UNAVAILABLE, then the connections, then return."""
        state = self._state
        state.draining = state.closing = True
        self._stop_listening()
        connections = list(state.connections)
        for connection in connections:
            connection.calls.close()
        tasks = [task for connection in connections for task in connection.calls.tasks()]
        if tasks:
            await asyncio.wait(tasks, timeout=END_TIMEOUT)
        for connection in connections:
            connection.finish_drain()
        await _all_lost(connections, 2 * LINGER)
        for connection in connections:
            connection.abort()
        await _all_lost(connections, END_TIMEOUT)
        if left := [task for task in tasks if not task.done()]:
            log.warning("%d handlers do not react to their cancellation", len(left))
        if self._server is not None:
            # On 3.12.1 and 3.13.0 it may wait for ever, and all that matters is done.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), END_TIMEOUT)
            self._server = None

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()


async def _all_lost(connections: list[GrpcProtocol], timeout: float) -> None:
    if connections:
        await asyncio.wait([connection.lost for connection in connections], timeout=timeout)


def _explain(error: OSError, host: str, port: int) -> OSError:
    if error.errno == errno.EADDRINUSE:
        what = f"port {port} on {host} is in use: stop what listens there or choose another port"
    else:
        what = f"cannot listen at {host}:{port}: {error.strerror or error}"
    return OSError(error.errno, what)
