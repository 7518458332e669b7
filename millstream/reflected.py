"""The types of served functions, as the gateway's reflection tells them.

A client needs no generated code: the first call of a function asks for its description, and later
ones use it until the connection changes or the gateway no longer knows the method.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpclib.client import StreamStreamMethod
from grpclib.const import Status

from millstream.channel import DrainableChannel
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub
from shared.errors import (
    InternalError,
    InvalidRequest,
    MillstreamError,
    Unavailable,
    UnknownModel,
)

FRESH_FOR: Final = 60.0
"""Seconds that what may change is not asked again: a name's default version, a missing service."""

RENEW_AFTER: Final = 5.0
"""Seconds after which a refused request may be for types that changed."""

INFERENCE: Final = "/millstream.v1.Inference"
REFLECTION: Final = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Deadline:
    """What is left of the time that a call may take.

    Args:
        seconds: From now; None is for ever.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None
        if seconds is not None and seconds != math.inf:
            self._end = time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds, 0 where it passed."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


@dataclass(frozen=True, eq=False, slots=True)
class Method:
    """How to call a function.

    Attributes:
        model: Its served name, as the gateway gives it.
        service: The full name of its service; "" where it is called with values of any type.
        path: What is called.
        streaming: Whether it yields items.
        request: The class of its request.
        response: The class of its result, or of an item.
        files: The descriptors of its types, its own first.
        found: When, by the monotonic clock.
    """

    model: str
    service: str
    path: str
    streaming: bool
    request: Any
    response: Any
    files: tuple[FileDescriptorProto, ...]
    found: float

    def same_as(self, other: Method) -> bool:
        """Whether a call would look the same."""
        return (self.model, self.path, self.files) == (other.model, other.path, other.files)


class Methods:
    """The functions that a client has called, by the names it used.

    Args:
        connection: The channel, made when first needed.
        metadata: Sent with every call.
    """

    def __init__(
        self, connection: Callable[[], DrainableChannel], metadata: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._metadata = metadata

    async def find(self, name: str, deadline: Deadline) -> Method:
        """How to call a function.

        Raises:
            UnknownModel: Nobody serves it.
            InvalidRequest: It is a language model.
            InternalError: The gateway's description makes no sense.
            TimeoutError: The deadline passed.
        """
        known = self._fresh(name)
        if known is not None:
            return known
        channel = self._connection()
        async with asyncio.timeout(deadline.left()), channel.asking:
            known = self._fresh(name)  # Another call may have asked meanwhile.
            if known is None:
                known = await self._ask(name)
                channel.described[name] = known
                channel.described_by = channel.connection
            return known

    async def renew(self, name: str, used: Method, deadline: Deadline) -> Method | None:
        """Ask again after a refusal that fits types which changed; None where they did not.

        Raises:
            UnknownModel: Nobody serves it any more.
        """
        if time.monotonic() - used.found < RENEW_AFTER:
            return None
        described = self._connection().described
        if described.get(name) is used:
            del described[name]
        found = await self.find(name, deadline)
        return None if found.same_as(used) else found

    async def files(self, symbol: str) -> list[FileDescriptorProto]:
        """The file that defines something, and then those it imports.

        Raises:
            UnknownModel: The gateway does not know it.
        """
        from gateway.reflection import FILES
        from shared.descriptors import classes

        types = classes(FILES["v1"])
        method = StreamStreamMethod(
            self._connection(),
            REFLECTION,
            types["ServerReflectionRequest"],
            types["ServerReflectionResponse"],
        )
        request = types["ServerReflectionRequest"](file_containing_symbol=symbol)
        async with method.open(metadata=self._metadata) as stream:
            await stream.send_message(request, end=True)
            answer: Any = await stream.recv_message()
            while await stream.recv_message() is not None:
                pass
        if answer is None:
            raise InternalError("the gateway's reflection gave no answer")
        error = answer.error_response
        if error.error_code == Status.NOT_FOUND.value:
            raise UnknownModel(error.error_message, field="model")
        if error.error_code:
            raise InternalError(f"the gateway's reflection failed: {error.error_message}")
        try:
            described = answer.file_descriptor_response.file_descriptor_proto
            return [FileDescriptorProto.FromString(one) for one in described]
        except DecodeError as wrong:
            raise InternalError(f"the gateway described {symbol} wrongly: {wrong}") from wrong

    def _fresh(self, name: str) -> Method | None:
        channel = self._connection()
        if channel.connection != channel.described_by:
            channel.described.clear()  # It may be another gateway.
        known: Method | None = channel.described.get(name)
        if known is None or time.monotonic() - known.found < FRESH_FOR:
            return known
        return known if known.service and "@" in name else None

    async def _ask(self, name: str) -> Method:
        stub = InferenceStub(self._connection())
        response = await stub.GetModel(pb.GetModelRequest(name=name), metadata=self._metadata)
        model = response.model
        if model.service:
            return read(model.name, model.service, await self.files(model.service))
        if "predict" not in model.features:
            raise _refusal(model)
        streaming = "stream" in model.features  # Its service's name is another function's.
        path = f"{INFERENCE}/{'PredictStream' if streaming else 'Predict'}"
        types = (pb.PredictRequest, pb.PredictResponse)
        return Method(model.name, "", path, streaming, *types, (), time.monotonic())


def _refusal(model: pb.Model) -> MillstreamError:
    if model.state == pb.MODEL_STATE_LOADING:
        return Unavailable(f"model {model.name!r} is loading", retry_after=1.0)
    if model.state == pb.MODEL_STATE_FAILED:
        message = f"model {model.name!r} could not be loaded: {model.reason}"
        return Unavailable(message, retry_after=10.0)
    message = f"model {model.name!r} is a language model: call generate"
    return InvalidRequest(message, field="model")


def read(model: str, service: str, files: list[FileDescriptorProto]) -> Method:
    """Build a service's method and its types, in a pool of their own.

    Raises:
        InternalError: They make no sense.
    """
    by_name = {described.name: described for described in files}
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for imported in by_name[name].dependency:
                add(imported)
            pool.Add(by_name[name])

    try:
        for name in by_name:
            add(name)
        (method,) = pool.FindServiceByName(service).methods
        if method.server_streaming and "index" not in method.output_type.fields_by_name:
            raise ValueError(f"{method.output_type.full_name} has no index")
    except (KeyError, TypeError, ValueError) as wrong:
        raise InternalError(f"the gateway described {service} wrongly: {wrong}") from wrong
    return Method(
        model,
        service,
        f"/{service}/{method.name}",
        method.server_streaming,
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
        tuple(files),
        time.monotonic(),
    )
