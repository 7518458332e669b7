"""OpenAI's embeddings, over functions from a text to a vector: many texts, many calls at once."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.catalog import Function
from gateway.http.errors import openai_response
from gateway.http.front import Front, disconnected, end_after, name_of_one
from gateway.http.functions.asks import from_members
from gateway.http.openai.embedding_shape import DIMENSIONS, demand, takes_dimensions
from gateway.typed import untyped
from gateway.typed.call import PlainCall
from gateway.typed.options import Options
from shared.errors import (
    InternalError,
    InvalidRequest,
    MillstreamError,
    Overloaded,
    Unsupported,
)

MOST_INPUTS = 2048
"""OpenAI's."""
AT_ONCE = 256
"""Calls of one request that are open; a queue holds 1000 for all."""

TAGS: list[str | Enum] = ["OpenAI"]


class EmbeddingRequest(BaseModel):
    """The body of /v1/embeddings."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    priority: str | None = None


def register(routes: FastAPI, front: Front) -> None:
    """Add the routes."""

    @routes.post("/v1/embeddings", response_class=Response, tags=TAGS)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Give a vector for each text."""
        texts = _texts(body.input)
        function = front.function(request, body.model)
        parameter = demand(function.typed.signature)
        inputs: dict[str, Any] = {}
        if body.dimensions is not None and takes_dimensions(function.typed.signature):
            inputs[DIMENSIONS] = body.dimensions
        options = from_members(request, {"priority": body.priority}, packed=False).options
        messages = []
        for place, text in enumerate(texts):
            given = {**inputs, parameter.name: text}
            try:
                messages.append(untyped.request_of(function.typed, given, json=True))
            except InvalidRequest as error:
                field = "input" if len(texts) == 1 else f"input[{place}]"
                raise error.renamed(error.message, field) from error
        return EmbeddingReply(front, function, body, messages, options)


class EmbeddingReply(Response):
    """The vectors of one request, in the order of its texts.

    Args:
        front: What all endpoints share.
        function: Which.
        body: What was asked.
        messages: The function's request messages, checked.
        options: How the calls are to be run.
    """

    background: BackgroundTask | None = None

    def __init__(
        self,
        front: Front,
        function: Function,
        body: EmbeddingRequest,
        messages: Sequence[Any],
        options: Options,
    ) -> None:
        self._front = front
        self._function = function
        self._body = body
        self._messages = messages
        self._options = options
        self._calls: set[PlainCall] = set()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._ended = asyncio.Event()
        self._tokens = 0

    def fail(self, error: MillstreamError) -> None:
        """End it with an error."""
        for call in list(self._calls):
            call.fail(error)

    def ping(self) -> None:
        """The client waits for the whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        working = asyncio.create_task(self._vectors())
        watching = asyncio.create_task(disconnected(receive))
        limit = end_after(self._options.seconds, self.fail)
        self._front.enter(self)
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                return
            response = JSONResponse(self._answer(working.result()))
        except MillstreamError as error:
            response = openai_response(error)  # type: ignore[assignment]
        finally:
            if limit is not None:
                limit.cancel()
            watching.cancel()
            working.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)
            self._front.leave(self)
        await response(scope, receive, send)

    async def _vectors(self) -> list[bytes]:
        """All vectors.

        Raises:
            MillstreamError: What the first call that failed did so with; the others are ended.
        """
        tasks = [
            asyncio.create_task(self._vector(place, message))
            for place, message in enumerate(self._messages)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _vector(self, place: int, message: Any) -> bytes:
        options = self._options
        if len(self._messages) > 1:  # Each has a name of its own.
            options = replace(options, request_id=name_of_one(options.request_id, place))
        async with self._free:
            call = await self._begin(message, options)
            self._calls.add(call)
            try:
                result = (await call.result()).result
                self._tokens += call.prompt_tokens
            finally:
                self._calls.discard(call)
                call.close()
                ended, self._ended = self._ended, asyncio.Event()
                ended.set()
        if result.dtype != "float32" or len(result.shape) != 1 or len(result.data) % 4:
            raise InternalError("the worker gave no vector of float32")
        wanted = self._body.dimensions
        if wanted is not None and wanted != len(result.data) // 4:
            raise Unsupported(
                f"dimensions is {wanted}: {self._function.card.name!r} gives "
                f"{len(result.data) // 4}",
                field=DIMENSIONS,
            )
        data: bytes = result.data
        return data

    async def _begin(self, message: Any, options: Options) -> PlainCall:
        """Open a call; where a limit is reached, as soon as another of the request has ended.

        Raises:
            MillstreamError: It cannot be opened, though no other of the request is.
        """
        while True:
            try:
                return self._front.calls.begin(self._function, message, options)
            except Overloaded:
                if not self._calls:
                    raise
            await self._ended.wait()

    def _answer(self, vectors: Sequence[bytes]) -> dict[str, Any]:
        packed = self._body.encoding_format == "base64"
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": place,
                    "embedding": base64.b64encode(data).decode()
                    if packed
                    else list(struct.unpack(f"<{len(data) // 4}f", data)),
                }
                for place, data in enumerate(vectors)
            ],
            "model": self._body.model,
            "usage": {"prompt_tokens": self._tokens, "total_tokens": self._tokens},
        }


def _texts(given: str | list[Any]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not texts or len(texts) > MOST_INPUTS:
        raise InvalidRequest(
            f"input has {len(texts)} texts: want 1 to {MOST_INPUTS}", field="input"
        )
    if not isinstance(texts[0], str):
        raise Unsupported("input is token ids: send text", field="input")
    return texts
