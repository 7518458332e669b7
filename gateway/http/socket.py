"""A WebSocket per model: takes requests, streams their events, takes `cancel`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.halves import may_hold_half, refuse_halves
from gateway.http.conversation import Conversation
from gateway.http.events import SocketStream, failed_message
from gateway.http.front import Front, end_after
from gateway.http.functions.socket import FunctionConversation
from gateway.http.plain import accept
from gateway.session import Session
from gateway.status import stopping
from shared.errors import Cancelled, DuplicateRequest, InvalidRequest, MillstreamError


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.websocket("/v1/models/{name:path}/socket")
    async def converse(socket: WebSocket, name: str) -> None:
        """Serve one connection, to a language model or a function."""
        await socket.accept()
        entry = front.catalog.find(name)
        function = entry is not None and entry.is_function
        kind = FunctionConversation if function else GenerateConversation
        await kind(front, socket, name).serve()


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


class GenerateConversation(Conversation):
    """One connection to a language model.

    Args:
        front: What all endpoints share.
        socket: The connection, accepted.
        model: The served name.
    """

    def __init__(self, front: Front, socket: WebSocket, model: str) -> None:
        super().__init__(front, socket)
        self._model = model
        self._writer = _SocketWriter(socket)
        self._session: Session | None = None

    @property
    def busy(self) -> bool:
        """Whether a request runs."""
        return self._session is not None

    def fail(self, error: MillstreamError) -> None:
        """End the request with an error."""
        if self._session is not None:
            self._session.fail(error)

    async def take(self, text: str | bytes) -> None:
        """Take a message: a request, or `cancel`."""
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
        if self.front.draining:
            raise stopping()
        self.socket.state.request_id = ""
        asked = accept(self.front, self.socket, self._model, message)
        outlet = SocketStream(
            self._writer,
            self.front.flusher,
            self.fail,
            request_id=asked.request.request_id,
            model=asked.request.model,
        )
        session = self.front.open(asked, outlet, paced=True)
        self._session = session
        self.answering = asyncio.create_task(self._answer(session, outlet, asked.seconds))

    async def _answer(self, session: Session, outlet: SocketStream, seconds: float | None) -> None:
        limit = end_after(seconds, self.fail)
        self.front.enter(self)
        try:
            await outlet.run()
        except MillstreamError as error:
            await self._writer.send([outlet.error_event(error)])
        except WebSocketDisconnect:
            pass  # `serve` hears of it too.
        finally:
            if limit is not None:
                limit.cancel()
            self.front.door.close(session)
            self._session = None
            self.front.leave(self)


def _parse(text: str | bytes) -> dict[str, Any]:
    data = text.encode() if isinstance(text, str) else text
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the message is no JSON: {error}") from None
    if message == "cancel":
        return {"type": "cancel"}
    if not isinstance(message, dict):
        raise InvalidRequest("the message must be a JSON object")
    if may_hold_half(data):
        refuse_halves(message)
    return message
