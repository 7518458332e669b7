"""Functions over the protocol: parameters are inputs, what they give is the output `result`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.catalog import Catalog, Entry, Function
from gateway.door import Door
from gateway.grpc.writer import ResponseWriter
from gateway.kserve import inference_pb2 as pb
from gateway.kserve import packing
from gateway.kserve.answers import streamed
from gateway.kserve.parameters import seconds_of, wants_empty_final
from gateway.typed import untyped
from gateway.typed.call import PlainCall
from gateway.typed.calls import Calls
from gateway.typed.options import options_of
from shared import values
from shared.errors import InternalError, InvalidRequest, UnknownModel, Unsupported
from shared.typed import RESULT, Typed

if TYPE_CHECKING:
    from grpclib.server import Stream


def served_name(name: str, version: str) -> str:
    """The name of a version of a function; the same where no version is asked for.

    Raises:
        InvalidRequest: The name says another version.
    """
    bare, _, own = name.partition("@")
    if own and version not in ("", own):
        raise InvalidRequest(
            f"version {version[:40]!r}: {name[:120]!r} says {own[:40]!r}", field="model_version"
        )
    return f"{bare}@{version}" if version else name


def metadata(typed: Typed, entries: Sequence[Entry]) -> pb.ModelMetadataResponse:
    """A function's tensors, and the versions of it among entries."""
    signature = typed.signature
    said = pb.ModelMetadataResponse(name=signature.name, platform="app")
    said.versions.extend(
        entry.typed.signature.version
        for entry in entries
        if entry.typed is not None and entry.typed.signature.name == signature.name
    )
    for field in signature.inputs.fields:
        datatype, shape = packing.described(field.type)
        said.inputs.add(name=field.name, datatype=datatype, shape=shape)
    if signature.output is not None:
        datatype, shape = packing.described(signature.output)
        said.outputs.add(name=RESULT, datatype=datatype, shape=shape)
    return said


def configuration(typed: Typed) -> pb.ModelConfig:
    """A function as Triton describes a model."""
    signature = typed.signature
    policy = pb.ModelTransactionPolicy(decoupled=signature.streaming)
    config = pb.ModelConfig(
        name=signature.name, platform="app", backend="app", model_transaction_policy=policy
    )
    for field in signature.inputs.fields:
        datatype, shape = packing.described(field.type)
        kind = packing.config_type(datatype)
        config.input.add(name=field.name, data_type=kind, dims=shape, optional=not field.required)
    if signature.output is not None:
        datatype, shape = packing.described(signature.output)
        config.output.add(name=RESULT, data_type=packing.config_type(datatype), dims=shape)
    return config


class Functions:
    """Answers inference requests by calls.

    Args:
        door: The way in.
        catalog: The models.
    """

    def __init__(self, door: Door, catalog: Catalog) -> None:
        self._calls = Calls(door, catalog)
        self._catalog = catalog

    def named(self, name: str, version: str) -> str | None:
        """The served name of a function that a request means; None where it means none.

        Raises:
            InvalidRequest: The name says another version.
            UnknownModel: Nobody serves it.
        """
        entry = self._catalog.find(name)
        if entry is None and version:
            entry = self._catalog.find(f"{name}@{version}")
        if entry is None and name:
            raise UnknownModel(f"model {name[:200]!r} is not served here", field="model_name")
        if entry is None or not entry.is_function:
            return None
        return served_name(name, version)

    async def whole(
        self, name: str, message: pb.ModelInferRequest, stream: Stream[Any, Any]
    ) -> pb.ModelInferResponse:
        """The one answer of a function.

        Raises:
            MillstreamError: What is wrong with the request, or what the call failed with.
        """
        function = self._calls.function(name)
        if function.typed.signature.streaming:
            raise Unsupported(
                "ModelInfer RPC doesn't support models with decoupled transaction policy: call "
                "ModelStreamInfer"
            )
        call = self._open(function, message, stream)
        try:
            return _response(message, function.typed, await call.item())
        finally:
            call.close()

    async def answer(
        self,
        name: str,
        message: pb.ModelInferRequest,
        stream: Stream[Any, Any],
        writer: ResponseWriter,
    ) -> None:
        """Answer one of a stream's requests, item by item where the function streams.

        As from Triton, the end of a stream is told where the request wants to hear it.

        Raises:
            MillstreamError: What is wrong with the request, or what the call failed with.
        """
        function = self._calls.function(name)
        typed = function.typed
        wants_end = wants_empty_final(message)
        call = self._open(function, message, stream)
        try:
            if typed.signature.streaming:
                while (items := await call.some()) is not None:
                    made = [_response(message, typed, item) for item in items]
                    await writer.send([streamed(one, final=False) for one in made])
            else:
                response = _response(message, typed, await call.item())
                await writer.send([streamed(response, final=not wants_end)])
            if wants_end:
                await writer.send([streamed(_empty(message, typed), final=True)])
        finally:
            call.close()

    def _open(
        self, function: Function, message: pb.ModelInferRequest, stream: Stream[Any, Any]
    ) -> PlainCall:
        typed = function.typed
        for output in message.outputs:
            if output.name != RESULT or typed.signature.output is None:
                raise InvalidRequest(
                    f"output {output.name[:80]!r} is unknown: want {RESULT}",
                    field=output.name[:80],
                )
        inputs = packing.read(message, typed.signature)
        request = untyped.request_of(typed, inputs, json=True)
        # Ids of the protocol may be any text and are the stream's own: they name no request.
        options = replace(options_of(stream), request_id="")
        call = self._calls.begin(function, request, options)
        call.limit(seconds_of(message))
        return call


def _empty(message: pb.ModelInferRequest, typed: Typed) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(
        model_name=message.model_name, model_version=typed.signature.version, id=message.id
    )


def _response(message: pb.ModelInferRequest, typed: Typed, item: bytes) -> pb.ModelInferResponse:
    response = _empty(message, typed)
    result = values.from_message(untyped.parsed(typed, item)).get(RESULT)
    kind = typed.signature.output
    if result is not None and kind is not None:
        try:
            packing.add(response, RESULT, kind, result)
        except KeyError as error:
            raise InternalError(f"the worker gave an array of {error}") from None
    return response
