"""An in-process gRPC server that serves functions as a gateway does, played by the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from gateway.reflection import ReflectionService
from gateway.status import to_grpc
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError, UnknownModel
from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
    Signature,
    TensorType,
    Type,
)
from shared.typed import Typed, alias_file
from tests.unit.fake_gateway import FakeGateway, count_to_three, model

Play = Callable[[Any, "Call"], Awaitable[None]]


@dataclass
class Call:
    """One call of a function.

    Attributes:
        stream: Where the response goes.
        response: Its class.
    """

    stream: Stream[Any, Any]
    response: Any

    async def answer(self, **fields: Any) -> None:
        await self.stream.send_message(self.response(**fields))


class Functions(FakeGateway):
    """Serves functions; counts what it sees.

    Attributes:
        calls: The metadata of each call.
        asked: Names that GetModel was asked for.
        cancelled: Set when a call was cancelled.
    """

    def __init__(self) -> None:
        super().__init__(count_to_three)
        self.plays: dict[str, Play] = {}
        self.models: dict[str, pb.Model] = {}
        self.calls: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.handlers: dict[str, Handler] = {}
        self.reflection = ReflectionService()

    def serve(self, signature: Signature, play: Play, *, typed: bool = True) -> None:
        """Serve a function, by its name with and without its version."""
        types = Typed(signature)
        described = pb.Model(
            name=signature.served_name,
            engine="app",
            workers=1,
            features=["predict", *(["stream"] if signature.streaming else [])],
            state=pb.MODEL_STATE_READY,
            service=types.service if typed else "",
        )
        self.models |= {signature.name: described, signature.served_name: described}
        self.plays[signature.name] = play
        if typed:
            cardinality = (
                Cardinality.UNARY_STREAM if signature.streaming else Cardinality.UNARY_UNARY
            )
            self.handlers[types.path] = Handler(
                partial(self._play, play, types.response),
                cardinality,
                types.request,
                types.response,
            )
            self.reflection.add([*types.files, alias_file(signature)], [types.service])

    def withdraw(self, signature: Signature) -> None:
        """Serve a function no longer."""
        del self.models[signature.name], self.models[signature.served_name]
        types = Typed(signature)
        gone = partial(self._play, refuse(Status.UNIMPLEMENTED, "Method not found"), types.response)
        self.handlers[types.path] = self.handlers[types.path]._replace(func=gone)

    async def _play(self, play: Play, response: Any, stream: Stream[Any, Any]) -> None:
        assert stream.metadata is not None
        self.calls.append({name: str(value) for name, value in stream.metadata.items()})
        request = await stream.recv_message()
        try:
            await play(request, Call(stream, response))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        except MillstreamError as error:
            raise to_grpc(error) from error

    async def Predict(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        await self._untyped(stream)

    async def PredictStream(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        await self._untyped(stream)

    async def _untyped(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        (play,) = self.plays.values()
        await self._play(play, pb.PredictResponse, stream)

    async def ListModels(self, stream: Stream[pb.ListModelsRequest, pb.ListModelsResponse]) -> None:
        await stream.recv_message()
        functions = {one.name: one for one in self.models.values()}
        await stream.send_message(pb.ListModelsResponse(models=[model("sim"), *functions.values()]))

    async def GetModel(self, stream: Stream[pb.GetModelRequest, pb.GetModelResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.asked.append(request.name)
        found = model("sim") if request.name == "sim" else self.models.get(request.name)
        if found is None:
            raise to_grpc(UnknownModel(f"model {request.name!r} is not served here"))
        await stream.send_message(pb.GetModelResponse(model=found))

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        """Listen; yields the target."""
        server = Server([self, self.reflection])
        server._mapping.update(self.handlers)
        self.handlers = server._mapping  # So that functions come and go while it runs.
        listener = socket.create_server(("127.0.0.1", port))
        await server.start(sock=listener)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.close()
            await server.wait_closed()


def refuse(status: Status, message: str, details: list[Any] | None = None) -> Play:
    async def play(_request: Any, _call: Call) -> None:
        raise GRPCError(status, message, details)

    return play


async def mirror(request: Any, call: Call) -> None:
    answer = call.response()
    for described, value in request.ListFields():
        target = getattr(answer.result, described.name)
        if hasattr(target, "MergeFrom"):
            target.MergeFrom(value)
        else:
            setattr(answer.result, described.name, value)
    await call.stream.send_message(answer)


async def greet(request: Any, call: Call) -> None:
    await call.answer(result=f"hello {request.who}")


async def count(request: Any, call: Call) -> None:
    for index in range(request.to):
        await call.answer(result=index * index, index=index)


# ---- the functions that are served --------------------------------------------------------------

TEXT = Scalar("string")
COLOURS = EnumType("Colour", ("RED", "BLUE"))
POINT = Record("Point", (Field("x", 1, Scalar("double")), Field("label", 2, TEXT, False)))


def signature(
    name: str,
    inputs: dict[str, Type] | None = None,
    output: Type | None = TEXT,
    *,
    streaming: bool = False,
) -> Signature:
    fields = (
        Field(one, n, type_, False) for n, (one, type_) in enumerate((inputs or {}).items(), 1)
    )
    return Signature(name, "1", Record("In", tuple(fields)), output, streaming)


EVERYTHING: dict[str, Type] = {
    "text": TEXT,
    "number": Scalar("int64"),
    "ratio": Scalar("double"),
    "flag": Scalar("bool"),
    "raw": Scalar("bytes"),
    "when": Scalar("timestamp"),
    "free": Scalar("json"),
    "colour": COLOURS,
    "point": POINT,
    "points": ListType(POINT),
    "scores": MapType(Scalar("double")),
    "array": TensorType("float32", ("n", 2)),
    "picture": MediaType("image"),
    "grid": ListType(ListType(Scalar("int64"))),
}
ALL = Record("All", tuple(Field(n, i, t, False) for i, (n, t) in enumerate(EVERYTHING.items(), 1)))
MIRROR = signature("mirror", EVERYTHING, ALL)
GREET = signature("greet", {"who": TEXT})
COUNT = signature("count", {"to": Scalar("int64")}, Scalar("int64"), streaming=True)
