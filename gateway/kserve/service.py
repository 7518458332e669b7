"""inference.GRPCInferenceService: the eight methods, over the gateway's own sessions."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from grpclib.exceptions import StreamTerminatedError

from gateway.access.guard import TENANT
from gateway.access.view import View
from gateway.catalog import Catalog, Entry
from gateway.collected import Collected
from gateway.door import Door
from gateway.grpc.writer import ResponseWriter
from gateway.kserve import functions
from gateway.kserve import inference_pb2 as pb
from gateway.kserve.answers import Answers, TensorStream
from gateway.kserve.asks import Ask, ask_of
from gateway.kserve.conversation import Conversation, error_message, renamed
from gateway.kserve.functions import Functions
from gateway.kserve.inference_grpc import GRPCInferenceServiceBase
from gateway.kserve.models import check_version, configuration, metadata
from gateway.kserve.parameters import until
from gateway.outlet import Flusher
from gateway.session import Session
from gateway.typed.options import metadata_of
from shared.errors import InvalidRequest, MillstreamError, UnknownModel

if TYPE_CHECKING:
    from grpclib.server import Stream


class KServeService(GRPCInferenceServiceBase):
    """The protocol.

    Args:
        door: The way in.
        catalog: The models.
        ready: Whether requests can be taken.
    """

    def __init__(self, door: Door, catalog: Catalog, ready: Callable[[], bool]) -> None:
        self._door = door
        self._ready = ready
        self._view = View(catalog, door.access)
        self._functions = Functions(door, catalog)
        self._flusher = Flusher()
        self._conversations: set[Conversation] = set()
        self._draining = False

    # ---- what is there --------------------------------------------------------------------------

    async def ServerLive(self, stream: Stream[pb.ServerLiveRequest, pb.ServerLiveResponse]) -> None:
        """Say that the process answers."""
        await stream.recv_message()
        await stream.send_message(pb.ServerLiveResponse(live=True))

    async def ServerReady(
        self, stream: Stream[pb.ServerReadyRequest, pb.ServerReadyResponse]
    ) -> None:
        """Say whether requests can be taken."""
        await stream.recv_message()
        await stream.send_message(pb.ServerReadyResponse(ready=self._ready()))

    async def ModelReady(self, stream: Stream[pb.ModelReadyRequest, pb.ModelReadyResponse]) -> None:
        """Say whether a model can be called."""
        message = await stream.recv_message()
        if message is None:
            return
        try:
            ready = self._ready() and self._entry(stream, message).workers > 0
        except (UnknownModel, InvalidRequest):
            ready = False
        await stream.send_message(pb.ModelReadyResponse(ready=ready))

    async def ServerMetadata(
        self, stream: Stream[pb.ServerMetadataRequest, pb.ServerMetadataResponse]
    ) -> None:
        """Describe the server."""
        await stream.recv_message()
        said = pb.ServerMetadataResponse(
            name="millstream", version=version("millstream"), extensions=["model_configuration"]
        )
        await stream.send_message(said)

    async def ModelMetadata(
        self, stream: Stream[pb.ModelMetadataRequest, pb.ModelMetadataResponse]
    ) -> None:
        """Describe a model's tensors."""
        message = await stream.recv_message()
        if message is None:
            return
        entry = self._entry(stream, message)
        if entry.typed is None:
            said = metadata(entry)
        else:
            said = functions.metadata(entry.typed, self._view.models(metadata_of(stream, TENANT)))
        await stream.send_message(said)

    async def ModelConfig(
        self, stream: Stream[pb.ModelConfigRequest, pb.ModelConfigResponse]
    ) -> None:
        """Describe a model as Triton does."""
        message = await stream.recv_message()
        if message is None:
            return
        entry = self._entry(stream, message)
        typed = entry.typed
        config = configuration(entry) if typed is None else functions.configuration(typed)
        await stream.send_message(pb.ModelConfigResponse(config=config))

    def _entry(self, stream: Stream[Any, Any], message: Any) -> Entry:
        """The model, or the version of a function, that a message names."""
        name = self._functions.named(message.name, message.version)
        if name is None:
            check_version(message.version, "version")
        return self._view.model(metadata_of(stream, TENANT), name or message.name)

    # ---- inference ------------------------------------------------------------------------------

    async def ModelInfer(self, stream: Stream[pb.ModelInferRequest, pb.ModelInferResponse]) -> None:
        """Answer one request as a whole."""
        message = await stream.recv_message()
        if message is None:
            return
        name = self._functions.named(message.model_name, message.model_version)
        if name is not None:
            await stream.send_message(await self._functions.whole(name, message, stream))
            return
        ask = _ask(message)
        if ask.stream:
            raise InvalidRequest(
                "stream is true: call ModelStreamInfer, or set it to false", field="stream"
            )
        try:
            response = await self._whole(message, ask, stream)
        except MillstreamError as error:
            raise renamed(error) from error
        await stream.send_message(response)

    async def ModelStreamInfer(
        self, stream: Stream[pb.ModelInferRequest, pb.ModelStreamInferResponse]
    ) -> None:
        """Answer a stream's requests side by side; what fails is said, and the rest goes on."""
        conversation = Conversation(stream, self._one)
        self._conversations.add(conversation)
        try:
            if self._draining:
                conversation.drain()
            await stream.send_initial_metadata()
            await conversation.serve()
        finally:
            self._conversations.discard(conversation)

    def drain(self) -> None:
        """End streams as soon as they are idle, with UNAVAILABLE."""
        self._draining = True
        for conversation in list(self._conversations):
            conversation.drain()

    async def _one(
        self, message: pb.ModelInferRequest, stream: Stream[Any, Any], writer: ResponseWriter
    ) -> None:
        """Answer one of a stream's requests."""
        try:
            name = self._functions.named(message.model_name, message.model_version)
            if name is not None:
                await self._functions.answer(name, message, stream, writer)
                return
            ask = _ask(message)
            if ask.stream:
                await self._pieces(message, ask, stream, writer)
            else:
                response = await self._whole(message, ask, stream)
                await writer.send(_answers(message, ask).last(response))
        except MillstreamError as error:
            await writer.send([error_message(message, error)])
        except StreamTerminatedError:
            pass  # The client left; the call itself is cancelled for it.

    async def _whole(
        self, message: pb.ModelInferRequest, ask: Ask, stream: Stream[Any, Any]
    ) -> pb.ModelInferResponse:
        collected = Collected(max(1, ask.message.sampling.n))
        session = self._open(ask, collected, stream)
        try:
            await until(ask.seconds, collected.run())
        finally:
            self._door.close(session)
        return _answers(message, ask).whole(collected)

    async def _pieces(
        self,
        message: pb.ModelInferRequest,
        ask: Ask,
        stream: Stream[Any, Any],
        writer: ResponseWriter,
    ) -> None:
        def overflowed(error: MillstreamError) -> None:
            if outlet.session is not None:
                outlet.session.fail(error)

        outlet = TensorStream(writer, self._flusher, overflowed, _answers(message, ask))
        outlet.session = session = self._open(ask, outlet, stream)
        try:
            await until(ask.seconds, outlet.run())
        finally:
            self._door.close(session)

    def _open(
        self, ask: Ask, outlet: Collected | TensorStream, stream: Stream[Any, Any]
    ) -> Session:
        # Ids of the protocol may be any text and are the stream's own: they name no request.
        request = self._door.accept(
            ask.message,
            traceparent=metadata_of(stream, "traceparent"),
            tenant=metadata_of(stream, TENANT),
        )
        left = [ask.seconds, stream.deadline.time_remaining() if stream.deadline else None]
        seconds = min((one for one in left if one is not None), default=None)
        return self._door.open(request, outlet, seconds=seconds)


def _ask(message: pb.ModelInferRequest) -> Ask:
    check_version(message.model_version, "model_version")
    return ask_of(message)


def _answers(message: pb.ModelInferRequest, ask: Ask) -> Answers:
    return Answers(message.id, message.model_name, ask)
