"""The RPCs of millstream.v1.Inference: a request's way begins here.

`Generate` validates, opens a session and writes what it delivers until it ends; leaving the method,
for whatever reason, closes the session and so cancels what still runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from gateway import validate
from gateway.access.guard import TENANT
from gateway.access.view import View
from gateway.catalog import Catalog, Entry
from gateway.door import Door
from gateway.grpc.stream import RpcStream
from gateway.link import Link
from gateway.outlet import Flusher, GenerateOutlet
from gateway.session import Session
from gateway.typed import untyped
from gateway.typed.calls import Calls
from gateway.typed.options import Options, metadata_of, options_of
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceBase
from shared.errors import MillstreamError, UnknownRequest

if TYPE_CHECKING:
    from grpclib.server import Stream

_STATES = {
    "loading": pb.MODEL_STATE_LOADING,
    "ready": pb.MODEL_STATE_READY,
    "failed": pb.MODEL_STATE_FAILED,
}


class InferenceService(InferenceBase):
    """The public API.

    Args:
        door: The way in.
        link: The way to NATS.
        catalog: The models.
        calls: Calls functions; made where there is none yet.
        service_of: The typed service of a function, or "".
    """

    def __init__(
        self,
        door: Door,
        link: Link,
        catalog: Catalog,
        calls: Calls | None = None,
        service_of: Callable[[str], str] = lambda _name: "",
    ) -> None:
        self._door = door
        self._link = link
        self._view = View(catalog, door.access)
        self._calls = calls or Calls(door, catalog)
        self._service_of = service_of
        self._flusher = Flusher()

    async def Generate(self, stream: Stream[pb.GenerateRequest, pb.GenerateResponse]) -> None:
        """Stream one generation."""
        message = await stream.recv_message()
        if message is None:
            return
        pace = validate.check_pace(message)
        request = self._door.accept(
            message,
            request_id=metadata_of(stream, "x-request-id"),
            traceparent=metadata_of(stream, "traceparent"),
            tenant=metadata_of(stream, TENANT),
            ready=pace is None,  # What waits for its time is taken apart.
        )
        session: Session | None = None

        def overflowed(error: MillstreamError) -> None:
            if session is not None:
                session.fail(error)

        writer = cast(RpcStream, stream).writer
        outlet = GenerateOutlet(
            request.request_id, request.model, writer, self._flusher, overflowed
        )
        seconds = stream.deadline.time_remaining() if stream.deadline else None
        session = self._door.open(request, outlet, seconds=seconds, pace=pace)
        try:
            writer.begin_with_first(request.request_id)
            self._flusher.begin_soon(writer)
            await outlet.run()
        finally:
            writer.begin()
            self._door.close(session)

    async def Predict(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        """Call a function with values of any type."""
        message = await stream.recv_message()
        if message is None:
            return
        function = self._calls.function(
            message.model, tenant=metadata_of(stream, TENANT), streaming=False
        )
        request = untyped.request_of_values(function.typed, message.inputs)
        call = self._calls.begin(function, request, _options(stream, message))
        await self._calls.reply(stream, call, untyped.converter(function.typed))

    async def PredictStream(self, stream: Stream[pb.PredictRequest, pb.PredictResponse]) -> None:
        """Call a streaming function with values of any type."""
        message = await stream.recv_message()
        if message is None:
            return
        function = self._calls.function(
            message.model, tenant=metadata_of(stream, TENANT), streaming=True
        )
        request = untyped.request_of_values(function.typed, message.inputs)
        convert = untyped.converter(function.typed)
        await self._calls.stream(stream, function, request, _options(stream, message), convert)

    async def Cancel(self, stream: Stream[pb.CancelRequest, pb.CancelResponse]) -> None:
        """End a request, whichever gateway runs it."""
        message = await stream.recv_message()
        if message is None:
            return
        validate.check_request_id(message.request_id)
        if not await self._link.cancels.anywhere(metadata_of(stream, TENANT), message.request_id):
            raise UnknownRequest(
                f"no gateway runs request {message.request_id!r}", field="request_id"
            )
        await stream.send_message(pb.CancelResponse())

    async def ListModels(self, stream: Stream[pb.ListModelsRequest, pb.ListModelsResponse]) -> None:
        """List what is served."""
        await stream.recv_message()
        entries = self._view.models(metadata_of(stream, TENANT))
        models = [describe(entry, self._service_of(entry.name)) for entry in entries]
        await stream.send_message(pb.ListModelsResponse(models=models))

    async def GetModel(self, stream: Stream[pb.GetModelRequest, pb.GetModelResponse]) -> None:
        """Describe one model."""
        message = await stream.recv_message()
        if message is None:
            return
        entry = self._view.model(metadata_of(stream, TENANT), message.name)
        model = describe(entry, self._service_of(entry.name))
        await stream.send_message(pb.GetModelResponse(model=model))


def describe(entry: Entry, service: str = "") -> pb.Model:
    """A catalog entry as the client sees it, with its typed service."""
    model = pb.Model(
        name=entry.name,
        workers=entry.workers,
        state=_STATES[entry.state],
        reason=entry.reason,
        service=service,
    )
    card = entry.card
    if card is not None:
        model.engine = card.engine
        model.context_length = card.context_length
        model.vocab_size = card.vocab_size
        model.dtype = card.dtype
        model.features.extend(card.features)
    return model


def _options(stream: Stream[Any, Any], message: pb.PredictRequest) -> Options:
    """What the message says goes before the metadata."""
    options = options_of(stream)
    return replace(
        options,
        request_id=message.request_id or options.request_id,
        urgency=validate.urgency(message.priority) if message.priority else options.urgency,
        labels=validate.check_labels(message.labels) if message.labels else options.labels,
    )
