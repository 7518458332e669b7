"""Responses that are a function's call: it is opened, the client is watched, it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.catalog import Function
from gateway.http.errors import openai_response
from gateway.http.front import Front, disconnected
from gateway.http.functions.formats import Format
from gateway.http.sse import DIRECT, UNBUFFERED, SseWriter
from gateway.typed import untyped
from gateway.typed.call import PlainCall
from gateway.typed.options import Options
from shared import values
from shared.errors import MillstreamError

Body = Callable[[Any], Response]
"""Makes the response of what a function gave."""


class CallReply(Response):
    """A response that runs a call.

    Args:
        front: What all endpoints share.
        function: Which.
        message: Its checked request message.
        options: How it is to be run.
    """

    background: BackgroundTask | None = None

    def __init__(self, front: Front, function: Function, message: Any, options: Options) -> None:
        self._front = front
        self._function = function
        self._message = message
        self._options = options
        self._call: PlainCall | None = None
        self._gone = False

    def fail(self, error: MillstreamError) -> None:
        """End it with an error."""
        if self._call is not None:
            self._call.fail(error)

    def ping(self) -> None:
        """Nothing was written yet: the client waits for the whole."""

    async def _run(self, work: Callable[[PlainCall], Any], receive: Receive) -> Any:
        """Open the call and await work on it, until it is done or the client leaves.

        Raises:
            MillstreamError: What the call failed with.
        """
        call = self._front.calls.begin(self._function, self._message, self._options)
        self._call = call
        call.limit(self._options.seconds)
        loop = asyncio.get_running_loop()
        watching = loop.create_task(self._watch(call, receive))
        self._front.enter(self)
        try:
            # A task of its own: each wake-up of this one passes through all layers around it.
            return await loop.create_task(work(call))
        finally:
            watching.cancel()
            call.close()
            self._front.leave(self)

    async def _watch(self, call: PlainCall, receive: Receive) -> None:
        """Wait until the client is gone, and end the call then."""
        await disconnected(receive)
        self._gone = True
        call.close()

    def _result(self, item: bytes) -> Any:
        """What an item holds, None where the function gives nothing."""
        return values.from_message(untyped.parsed(self._function.typed, item)).get("result")


class OneReply(CallReply):
    """An answer in one piece.

    Args:
        front: What all endpoints share.
        function: Which.
        message: Its checked request message.
        options: How it is to be run.
        body: Makes the response.
    """

    def __init__(
        self, front: Front, function: Function, message: Any, options: Options, *, body: Body
    ) -> None:
        super().__init__(front, function, message, options)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            response = await self._run(self._one, receive)
        except MillstreamError as error:
            response = openai_response(error)
        if not self._gone:
            await response(scope, receive, send)

    async def _one(self, call: PlainCall) -> Response:
        return self._body(self._result(await call.item()))


class StreamReply(CallReply):
    """An answer item by item; a client that does not read pauses the function.

    Args:
        front: What all endpoints share.
        function: Which.
        message: Its checked request message.
        options: How it is to be run.
        form: What it looks like.
        skip: How many items the client has already.
    """

    def __init__(
        self,
        front: Front,
        function: Function,
        message: Any,
        options: Options,
        *,
        form: Format,
        skip: int = 0,
    ) -> None:
        super().__init__(front, function, message, options)
        self._form = form
        self._skip = skip
        self._silent = False

    def ping(self) -> None:
        """Write a comment where nothing was written since the last call."""
        if self._silent and self._form.comment and self._call is not None:
            self._call.poke()
        self._silent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        writer = SseWriter(send, scope[DIRECT])
        try:
            last: bytes | None = await self._run(lambda call: self._write(call, writer), receive)
        except MillstreamError as error:
            if not writer.started:
                await openai_response(error)(scope, receive, send)
                return
            last = self._form.failed(error)
        if self._gone or last is None:
            return  # What is cut off here is seen to be: the body's end is missing.
        if not writer.started and not self._form.content_type:
            await Response(status_code=204)(scope, receive, send)
            return
        if last or not writer.started:
            await self._send(writer, [last])
        await writer.end()

    async def _write(self, call: PlainCall, writer: SseWriter) -> bytes:
        """Write the items; gives what ends a complete stream."""
        place = 0
        while (items := await call.some()) is not None:
            written = []
            for item in items:
                if place >= self._skip:
                    written.append(self._form.item(place, self._result(item)))
                place += 1
            if written:
                self._silent = False
            if written or not items:
                await self._send(writer, written or [self._form.comment])
        return self._form.finished(place)

    async def _send(self, writer: SseWriter, pieces: list[bytes]) -> None:
        if not writer.started:
            writer.headers = (
                (b"content-type", self._form.content_type.encode("latin-1")),
                *UNBUFFERED,
                (b"x-content-type-options", b"nosniff"),
            )
        await writer.send(pieces)
