"""The HTTP server: uvicorn in the gateway's own process and loop; starts, drains, closes."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from gateway.http.app import build
from gateway.http.front import Front
from gateway.http.protocol import BoundedProtocol
from gateway.settings import GatewaySettings
from shared.errors import Unavailable

BACKLOG = 1024
END_TIMEOUT = 1.0
"""Seconds that answers get, after they are failed, to say so."""


class HttpServer:
    """An HTTP server over one port.

    Args:
        front: What all endpoints share.
        settings: The gateway's settings.

    Attributes:
        port: Where it listens, once started.
    """

    def __init__(self, front: Front, settings: GatewaySettings) -> None:
        self._shared = settings.processes > 1
        self._front = front
        app = build(
            front,
            cors_origins=settings.http_cors,
            max_body_bytes=settings.http_max_body_bytes,
        )
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(END_TIMEOUT),
            ws_max_size=settings.http_max_body_bytes,
            ws_per_message_deflate=False,
        )
        config.load()
        config.ssl = settings.tls("http/1.1")
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.lifespan = config.lifespan_class(config)
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    @property
    def open(self) -> int:
        """Answers under way."""
        return self._front.answering

    async def start(self, host: str, port: int) -> int:
        """Listen and serve.

        Returns:
            The port that is listened at.

        Raises:
            OSError: It cannot listen there; the message names host and port.
        """
        try:
            listener = _listen(host, port, self._shared)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen at {host}:{port}: {error}") from error
        await self._uvicorn.startup(sockets=[listener])
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._uvicorn.main_loop()),
            loop.create_task(self._front.keep_open()),
        ]
        self.port = listener.getsockname()[1]
        return self.port

    def leave(self) -> None:
        """Say that it is not ready, and go on serving."""
        self._front.leaving = True

    async def drain(self, grace: float) -> None:
        """Take nothing new and let what is open finish, for `grace` seconds."""
        self.leave()
        self._front.draining = True
        for server in self._uvicorn.servers:
            server.close()
        await self._front.wait_empty(grace)

    async def close(self) -> None:
        """End what is open with an error each, then the connections."""
        if not self._uvicorn.started:
            return
        self.leave()
        self._front.draining = True
        self._front.fail(Unavailable("this gateway has stopped", retry_after=1.0))
        await self._front.wait_empty(END_TIMEOUT)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._uvicorn.shutdown()


def _listen(host: str, port: int, shared: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=shared)
