"""Around every HTTP request: its id, the limit on its body, and the drain. Plain ASGI."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.errors import openai_response
from gateway.http.front import Front, request_id_of
from gateway.http.sse import DIRECT
from gateway.status import stopping
from shared.errors import Unauthenticated

_OPERATOR = "/health"
"""Paths that begin so are answered during a drain, and without a key."""


class Edge:
    """Wraps the application.

    Args:
        app: What it wraps.
        front: What all endpoints share.
        most_bytes: Of a request's body.
    """

    def __init__(self, app: ASGIApp, front: Front, most_bytes: int) -> None:
        self._app = app
        self._front = front
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        state = scope.setdefault("state", {})
        state["request_id"] = request_id_of(scope.get("headers", []))
        state["tenant"] = ""
        refused: Unauthenticated | None = None
        if not scope["path"].startswith(_OPERATOR):
            try:
                state["tenant"] = self._front.door.access.admit(_authorization(scope))
            except Unauthenticated as error:
                refused = error
        if scope["type"] != "http":
            if refused is not None:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": refused.message})
                return
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                name = state["request_id"].encode()
                headers = [*message.get("headers", ()), (b"x-request-id", name)]
                if self._front.leaving:  # The next request is to go to another gateway.
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        if self._front.draining and not scope["path"].startswith(_OPERATOR):
            await openai_response(stopping())(scope, receive, named)
            return
        if refused is not None:
            await openai_response(refused)(scope, receive, named)
            return
        scope[DIRECT] = send
        limited = _Limited(receive, self._most_bytes)
        limited.check_length(scope)
        await self._app(scope, limited, named)


def _authorization(scope: Scope) -> str:
    """The `authorization` header, or ""."""
    for name, value in scope.get("headers", []):
        if name == b"authorization":
            return str(value.decode("latin-1"))
    return ""


class _Limited:
    """A body that may not be longer than allowed, whatever its headers say."""

    __slots__ = ("_left", "_most", "_receive")

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._left = most

    def check_length(self, scope: Scope) -> None:
        """Note a declared length, so that the body is refused before it is read."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:18]) > self._most:
                self._left = -1

    async def __call__(self) -> Message:
        if self._left < 0:
            raise too_large(self._most)
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._most)
        return message


def too_large(most: int) -> HTTPException:
    """What a body over the limit is answered with."""
    text = f"the request body is larger than the {most} bytes that are taken"
    return HTTPException(413, text)
