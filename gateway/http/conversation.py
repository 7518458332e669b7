"""One WebSocket connection: what comes is taken message by message until the client is gone."""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.front import Front
from shared.errors import MillstreamError

GOING_AWAY = 1001


class Conversation:
    """A connection: one request at a time, as many as the client likes.

    Args:
        front: What all endpoints share.
        socket: The connection, accepted.

    Attributes:
        answering: Writes the answer to the last request.
    """

    def __init__(self, front: Front, socket: WebSocket) -> None:
        self.front = front
        self.socket = socket
        self.answering: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request runs."""
        raise NotImplementedError

    def fail(self, error: MillstreamError) -> None:
        """End the request with an error."""
        raise NotImplementedError

    def ping(self) -> None:
        """The protocol pings by itself."""

    async def take(self, message: str | bytes) -> None:
        """Take a message."""
        raise NotImplementedError

    async def serve(self) -> None:
        """Take messages until the client is gone."""
        try:
            while (message := await self._receive()) is not None:
                if self.front.draining and not self.busy:
                    await self.socket.close(GOING_AWAY, "this gateway is stopping")
                    return
                await self.take(message)
        except WebSocketDisconnect:
            pass  # It left while something was written.
        finally:
            if self.answering is not None:
                self.answering.cancel()
                await asyncio.gather(self.answering, return_exceptions=True)

    async def _receive(self) -> str | bytes | None:
        """The next message, or None once the client is gone."""
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text
