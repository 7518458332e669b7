"""An in-process gRPC server that says what a test tells it to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceBase

GenerateStream = Stream[pb.GenerateRequest, pb.GenerateResponse]
Script = Callable[[pb.GenerateRequest, GenerateStream], Awaitable[None]]


def started(request_id: str = "r1") -> pb.GenerateResponse:
    return pb.GenerateResponse(started=pb.Started(request_id=request_id, model="sim", worker="w1"))


def delta(index: int, text: str, ids: tuple[int, ...], choice: int = 0) -> pb.GenerateResponse:
    return pb.GenerateResponse(delta=pb.Delta(index=index, text=text, token_ids=ids, choice=choice))


def finished(tokens: int = 3) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        finished=pb.Finished(
            reason=pb.FINISH_REASON_LENGTH,
            usage=pb.Usage(prompt_tokens=2, completion_tokens=tokens, cached_tokens=1),
            timing=pb.Timing(queue=0.1, first_token=0.2, total=0.3),
            attempts=1,
        )
    )


class FakeGateway(InferenceBase):
    """Plays `script` for each Generate; counts what it sees."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[pb.GenerateRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()

    async def Generate(self, stream: GenerateStream) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.requests.append(request)
        assert stream.metadata is not None
        self.metadata.append({k: str(v) for k, v in stream.metadata.items()})
        try:
            await self._script(request, stream)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def Predict(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def PredictStream(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def Cancel(self, stream: Stream[pb.CancelRequest, pb.CancelResponse]) -> None:
        await stream.recv_message()
        await stream.send_message(pb.CancelResponse())

    async def ListModels(self, stream: Stream[pb.ListModelsRequest, pb.ListModelsResponse]) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ListModelsResponse(models=[model("sim")]))

    async def GetModel(self, stream: Stream[pb.GetModelRequest, pb.GetModelResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(pb.GetModelResponse(model=model(request.name)))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listen; yields the target."""
        server = Server([self])
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await server.start(sock=listener)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.close()
            await server.wait_closed()


def model(name: str) -> pb.Model:
    return pb.Model(
        name=name,
        engine="sim",
        context_length=4096,
        vocab_size=100,
        dtype="none",
        workers=2,
        features=["resume"],
        state=pb.MODEL_STATE_READY,
    )


async def count_to_three(request: pb.GenerateRequest, stream: GenerateStream) -> None:
    """The plain case."""
    await stream.send_message(started(request.request_id or "r1"))
    await stream.send_message(delta(0, " 0", (0,)))
    await stream.send_message(delta(1, " 1 2", (1, 2)))
    await stream.send_message(finished())


async def for_ever(_request: pb.GenerateRequest, stream: GenerateStream) -> None:
    """Starts and then says nothing more."""
    await stream.send_message(started())
    await stream.send_message(delta(0, " 0", (0,)))
    await asyncio.Event().wait()
