"""One ModelStreamInfer call: its requests run side by side, and one that fails says so alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from gateway.grpc.stream import RpcStream
from gateway.grpc.writer import ResponseWriter
from gateway.kserve import inference_pb2 as pb
from gateway.status import stopping
from shared.errors import MillstreamError, Overloaded

if TYPE_CHECKING:
    from grpclib.server import Stream

MOST_AT_ONCE = 1024
"""Requests that one stream may have open."""

Answer = Callable[[pb.ModelInferRequest, "Stream[Any, Any]", ResponseWriter], Awaitable[None]]


class Conversation:
    """The stream.

    Args:
        stream: The call.
        answer: Answers one request; what fails it writes too.
    """

    def __init__(
        self, stream: Stream[pb.ModelInferRequest, pb.ModelStreamInferResponse], answer: Answer
    ) -> None:
        self._stream = stream
        self._answer = answer
        self._running: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[pb.ModelInferRequest | None] | None = None
        self._draining = False

    async def serve(self) -> None:
        """Answer until the client has no more to ask.

        Raises:
            Unavailable: The gateway drains; all that was asked before is answered.
        """
        writer = cast(RpcStream, self._stream).writer
        async with asyncio.TaskGroup() as group:
            while (message := await self._next()) is not None:
                if problem := self._refusal():
                    await writer.send([error_message(message, problem)])
                    continue
                task = group.create_task(self._run(message, writer))
                self._running.add(task)
                task.add_done_callback(self._ended)
        if self._draining:
            raise stopping()

    def drain(self) -> None:
        """Take nothing new, and end when nothing runs."""
        self._draining = True
        self._leave_if_idle()

    async def _next(self) -> pb.ModelInferRequest | None:
        """The next request, or None where there is none any more."""
        if self._draining and not self._running:
            return None
        self._reading = asyncio.create_task(self._stream.recv_message())
        try:
            await asyncio.wait((self._reading,))
            return None if self._reading.cancelled() else self._reading.result()
        finally:
            self._reading.cancel()
            self._reading = None

    async def _run(self, message: pb.ModelInferRequest, writer: ResponseWriter) -> None:
        await self._answer(message, self._stream, writer)

    def _refusal(self) -> MillstreamError | None:
        if self._draining:
            return stopping()
        if len(self._running) >= MOST_AT_ONCE:
            return Overloaded(f"{MOST_AT_ONCE} requests are open on this stream")
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._draining and not self._running and self._reading is not None:
            self._reading.cancel()


def error_message(message: pb.ModelInferRequest, error: MillstreamError) -> bytes:
    """What a stream says of a request that failed."""
    failed = renamed(error)
    said = pb.ModelStreamInferResponse(error_message=failed.message)
    said.infer_response.id = message.id
    return said.SerializeToString()


def renamed(error: MillstreamError) -> MillstreamError:
    """The error with its field named as the protocol's clients know it."""
    field = error.field
    name = "text_input" if field == "prompt" else field.removeprefix("sampling.")
    message = error.message.replace(field, name) if "." in field else error.message
    return error.renamed(message, name)
