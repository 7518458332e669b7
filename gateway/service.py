"""The RPCs of millstream.v1.Inference: a request's way begins here.

`Generate` validates, opens a session and writes what it delivers until it ends; leaving the method,
for whatever reason, closes the session and so cancels what still runs.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import structlog

from gateway import validate
from gateway.catalog import Catalog, Entry
from gateway.link import Link
from gateway.outlet import Flusher, GenerateOutlet
from gateway.session import Session
from gateway.writer import ResponseWriter
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceBase
from shared import wire
from shared.bus import nats_away
from shared.errors import MillstreamError, UnknownModel, UnknownRequest

if TYPE_CHECKING:
    from grpclib.server import Stream

log = structlog.get_logger(__name__)

_STATES = {
    "loading": pb.MODEL_STATE_LOADING,
    "ready": pb.MODEL_STATE_READY,
    "failed": pb.MODEL_STATE_FAILED,
}
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class InferenceService(InferenceBase):
    """The public API.

    Args:
        gateway: This gateway's id.
        link: The way to NATS.
        catalog: The models.
    """

    def __init__(self, gateway: str, link: Link, catalog: Catalog) -> None:
        self._gateway = gateway
        self._link = link
        self._catalog = catalog
        self._flusher = Flusher()

    async def Generate(
        self, stream: Stream[pb.GenerateRequest, pb.GenerateResponse]
    ) -> None:
        """Stream one generation."""
        message = await stream.recv_message()
        if message is None:
            return
        request = self._accept(message, _metadata(stream, "x-request-id"), _metadata(stream, "traceparent"))
        if not self._link.ready:
            raise nats_away()
        remaining = stream.deadline.time_remaining() if stream.deadline else None
        deadline = None if remaining is None else time.monotonic() + remaining
        session: Session | None = None

        def overflowed(error: MillstreamError) -> None:
            if session is not None:
                session.fail(error)

        outlet = GenerateOutlet(
            request.request_id, request.model, ResponseWriter(stream), self._flusher, overflowed
        )
        session = self._link.router.open(request, outlet, deadline=deadline)
        try:
            await stream.send_initial_metadata(metadata={"x-request-id": request.request_id})
            await outlet.run()
        finally:
            self._link.router.close(session)

    def _accept(self, message: pb.GenerateRequest, header_id: str, traceparent: str) -> wire.Request:
        """Validate a request and give it its identity.

        Raises:
            MillstreamError: What is wrong with it.
        """
        urgency = validate.urgency(message)
        request_id = message.request_id or header_id or secrets.token_hex(12)
        validate.check_request_id(request_id)
        labels = validate.check_labels(message)
        card = self._catalog.card(message.model)
        prompt, messages, token_ids = validate.prompt_of(message, card)
        known = len(token_ids) if token_ids is not None else 1
        return wire.Request(
            id=ulid(),
            attempt=0,
            gateway=self._gateway,
            request_id=request_id,
            model=card.name,
            prompt=prompt,
            messages=messages,
            token_ids=token_ids,
            sampling=validate.sampling_of(message, card, known),
            urgency=urgency,
            labels=labels,
            traceparent=traceparent,
        )

    async def Cancel(self, stream: Stream[pb.CancelRequest, pb.CancelResponse]) -> None:
        """End a request, whichever gateway runs it."""
        message = await stream.recv_message()
        if message is None:
            return
        validate.check_request_id(message.request_id)
        if not await self._link.cancel_anywhere("", message.request_id):
            raise UnknownRequest(
                f"no gateway runs request {message.request_id!r}", field="request_id"
            )
        await stream.send_message(pb.CancelResponse())

    async def ListModels(
        self, stream: Stream[pb.ListModelsRequest, pb.ListModelsResponse]
    ) -> None:
        """List what is served."""
        await stream.recv_message()
        models = [describe(entry) for entry in self._catalog.entries()]
        await stream.send_message(pb.ListModelsResponse(models=models))

    async def GetModel(self, stream: Stream[pb.GetModelRequest, pb.GetModelResponse]) -> None:
        """Describe one model."""
        message = await stream.recv_message()
        if message is None:
            return
        entry = self._catalog.refresh().get(message.name)
        if entry is None:
            raise UnknownModel(f"model {message.name[:200]!r} is not served here", field="name")
        await stream.send_message(pb.GetModelResponse(model=describe(entry)))


def describe(entry: Entry) -> pb.Model:
    """A catalog entry as the client sees it."""
    model = pb.Model(
        name=entry.name, workers=entry.workers, state=_STATES[entry.state], reason=entry.reason
    )
    card = entry.card
    if card is not None:
        model.engine = card.engine
        model.context_length = card.context_length
        model.vocab_size = card.vocab_size
        model.dtype = card.dtype
        model.features.extend(card.features)
    return model


def ulid() -> str:
    """A ULID: 48 bits of time, 80 bits of chance, in Crockford's base 32 (26 characters)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join([_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5)])


def _metadata(stream: Stream[pb.GenerateRequest, pb.GenerateResponse], name: str) -> str:
    value = stream.metadata.get(name, "") if stream.metadata is not None else ""
    return value if isinstance(value, str) else ""
