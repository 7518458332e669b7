"""A WebSocket to a function: requests and their items, as JSON texts or msgpack binaries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.conversation import Conversation
from gateway.http.errors import openai_body
from gateway.http.front import Front
from gateway.http.functions.asks import from_members
from gateway.http.functions.pack import as_json, as_msgpack, read
from gateway.status import stopping
from gateway.typed import untyped
from gateway.typed.call import PlainCall
from shared import values
from shared.errors import Cancelled, DuplicateRequest, MillstreamError


class FunctionConversation(Conversation):
    """One connection: one call at a time, answered as it was asked.

    Args:
        front: What all endpoints share.
        socket: The connection, accepted.
        model: The function, with or without a version.
    """

    def __init__(self, front: Front, socket: WebSocket, model: str) -> None:
        super().__init__(front, socket)
        self._model = model
        self._call: PlainCall | None = None

    @property
    def busy(self) -> bool:
        """Whether a call runs."""
        return self._call is not None

    def fail(self, error: MillstreamError) -> None:
        """End the call with an error."""
        if self._call is not None:
            self._call.fail(error)

    async def take(self, message: str | bytes) -> None:
        """Take a message: a call, or `cancel`."""
        packed = isinstance(message, bytes)
        data = message.encode("utf-8", "replace") if isinstance(message, str) else message
        try:
            members = _cancel(message) or read(data, packed=packed)
            if members.pop("type", "predict") == "cancel":
                self.fail(Cancelled("cancelled by the client"))
                return
            if self._call is not None:
                raise DuplicateRequest("a call is running on this socket: wait or cancel it")
            if self.front.draining:
                raise stopping()
            call = self._open(members, packed=packed)
        except MillstreamError as error:
            await self._say(packed, {"type": "failed", **openai_body(error)})
            return
        self._call = call
        self.answering = asyncio.create_task(self._answer(call, packed))

    def _open(self, members: Mapping[str, Any], *, packed: bool) -> PlainCall:
        state = self.socket.state
        state.request_id = ""
        function = self.front.function(self.socket, self._model)
        ask = from_members(self.socket, members, packed=packed)
        message = untyped.request_of(function.typed, ask.inputs, json=True)
        call = self.front.calls.begin(function, message, ask.options)
        call.limit(ask.options.seconds)
        return call

    async def _answer(self, call: PlainCall, packed: bool) -> None:
        self.front.enter(self)
        try:
            try:
                last = await self._write(call, packed)
            finally:  # Before the last message: who hears it may ask again.
                call.close()
                self._call = None
                self.front.leave(self)
            await self._say(packed, last)
        except WebSocketDisconnect:
            pass  # `serve` hears of it too.

    async def _write(self, call: PlainCall, packed: bool) -> dict[str, Any]:
        """Write the items; gives what ends them."""
        model = call.function.card.name
        await self._say(packed, {"type": "accepted", "request_id": call.request_id, "model": model})
        place = 0
        try:
            while (items := await call.some()) is not None:
                for item in items:
                    message = untyped.parsed(call.function.typed, item)
                    result = values.from_message(message).get("result")
                    await self._say(packed, {"type": "item", "index": place, "result": result})
                    place += 1
        except MillstreamError as error:
            return {"type": "failed", **openai_body(error)}
        return {"type": "finished", "items": place}

    async def _say(self, packed: bool, message: dict[str, Any]) -> None:
        """Write a message; waits while the client does not read, and so does the function."""
        if packed:
            await self.socket.send_bytes(as_msgpack(message))
        else:
            await self.socket.send_text(as_json(message))


def _cancel(message: str | bytes) -> dict[str, Any] | None:
    """What the bare word `cancel` stands for."""
    return {"type": "cancel"} if message in ("cancel", json.dumps("cancel")) else None
