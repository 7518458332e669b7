"""A WebSocket per model: takes requests, streams their events, takes `cancel`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.events import SocketStream, failed_message
from gateway.http.front import Front
from gateway.http.plain import accept
from gateway.session import Session
from shared.errors import Cancelled, DuplicateRequest, InvalidRequest, MillstreamError, Unavailable

GOING_AWAY = 1001


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.websocket("/v1/models/{name:path}/socket")
    async def generate(socket: WebSocket, name: str) -> None:
        """Serve one connection."""
        await socket.accept()
        await Conversation(front, socket, name).serve()


class _SocketWriter:
    """Writes every message by itself."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    def write(self, messages: Sequence[bytes]) -> bool:
        """Take nothing: ASGI can only be awaited."""
        return False

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write all messages; waits while the client does not read."""
        for message in messages:
            await self._socket.send_text(message.decode())


class Conversation:
    """One connection: one request at a time, as many as the client likes.

    Args:
        front: What all endpoints share.
        socket: The connection, accepted.
        model: The served name.
    """

    def __init__(self, front: Front, socket: WebSocket, model: str) -> None:
        self._front = front
        self._socket = socket
        self._model = model
        self._writer = _SocketWriter(socket)
        self._session: Session | None = None
        self._answering: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Take messages until the client is gone."""
        try:
            while (text := await self._receive()) is not None:
                if self._front.draining and self._session is None:
                    await self._socket.close(GOING_AWAY, "this gateway is stopping")
                    return
                await self._take(text)
        except WebSocketDisconnect:
            pass  # It left while something was written.
        finally:
            if self._answering is not None:
                self._answering.cancel()
                await asyncio.gather(self._answering, return_exceptions=True)

    async def _receive(self) -> str | None:
        """The next message, or None once the client is gone."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        return message["bytes"].decode(errors="replace") if text is None else text

    def fail(self, error: MillstreamError) -> None:
        """End the request with an error."""
        if self._session is not None:
            self._session.fail(error)

    def ping(self) -> None:
        """The protocol pings by itself."""

    async def _take(self, text: str) -> None:
        try:
            message = _parse(text)
            if message.pop("type", "generate") == "cancel":
                self.fail(Cancelled("cancelled by the client"))
                return
            if self._session is not None:
                raise DuplicateRequest("a request is running on this socket: wait or cancel it")
            self._open(message)
        except MillstreamError as error:
            await self._writer.send([failed_message(error)])

    def _open(self, message: dict[str, Any]) -> None:
        if self._front.draining:
            raise Unavailable("this gateway is stopping", retry_after=1.0)
        self._socket.state.request_id = ""
        asked = accept(self._front, self._socket, self._model, message)
        outlet = SocketStream(
            self._writer,
            self._front.flusher,
            self.fail,
            request_id=asked.request.request_id,
            model=asked.request.model,
        )
        session = self._front.open(asked, outlet, paced=True)
        self._session = session
        self._answering = asyncio.create_task(self._answer(session, outlet))

    async def _answer(self, session: Session, outlet: SocketStream) -> None:
        self._front.enter(self)
        try:
            await outlet.run()
        except MillstreamError as error:
            await self._writer.send([outlet.error_event(error)])
        except WebSocketDisconnect:
            pass  # `serve` hears of it too.
        finally:
            self._front.door.close(session)
            self._session = None
            self._front.leave(self)


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"the message is no JSON: {error}") from None
    if message == "cancel":
        return {"type": "cancel"}
    if not isinstance(message, dict):
        raise InvalidRequest("the message must be a JSON object")
    return message
