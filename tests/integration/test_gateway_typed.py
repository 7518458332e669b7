"""Functions over real gRPC; the worker's part is played by the test."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from gateway.typed import untyped
from gateway.typed.call import PlainCall
from gateway.typed.options import Options
from millstream.v1 import inference_pb2 as pb
from millstream.v1 import types_pb2 as types
from shared import wire
from shared.errors import (
    DuplicateRequest,
    InternalError,
    InvalidRequest,
    RequestTooLarge,
    UnknownModel,
)
from shared.signature import Scalar, Signature
from shared.typed import Typed
from tests.integration.grpc_peer import channel, eventually
from tests.unit.typed_bench import RICH, Bench, signature

COUNT = signature("count", streaming=True, output=Scalar("int64"))
ECHO = signature()
ECHO_STREAM = signature(streaming=True)


@asynccontextmanager
async def bench(
    *signatures: Signature, **options: int
) -> AsyncIterator[tuple[Bench, grpc.aio.Channel]]:
    rig = Bench()
    rig.announce(*signatures)
    port = await rig.server.start("127.0.0.1", 0)
    try:
        async with channel(port, **options) as client:
            yield rig, client
    finally:
        await rig.server.close()


def call(client: grpc.aio.Channel, path: str, data: bytes, *metadata: tuple[str, str]) -> Any:
    return client.unary_unary(path)(data, metadata=metadata, timeout=60)


async def results(running: PlainCall) -> list[Any]:
    """All that a call gives, as it comes."""
    found = []
    while (items := await running.some()) is not None:
        found += [untyped.parsed(running.function.typed, item).result for item in items]
    return found


def stream(client: grpc.aio.Channel, path: str, data: bytes) -> Any:
    return client.unary_stream(path)(data, timeout=60)


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    found = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(found)
    out = []
    for packed in status.details:
        for cls in (BadRequest, ErrorInfo, RetryInfo):
            detail = cls()
            if packed.Unpack(detail):
                out.append(detail)
    return out


async def fails(awaited: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaited
    return caught.value


@pytest.mark.parametrize("service", ["millstream.models.v1.Echo", "millstream.models.Echo"])
async def test_a_typed_call_goes_out_and_its_result_comes_back(service: str) -> None:
    typed = Typed(ECHO)
    async with bench(ECHO) as (rig, client):
        going = call(
            client, f"/{service}/Predict", typed.request(text="hi").SerializeToString(),
            ("x-request-id", "mine"), ("x-priority", "batch"), ("color", "red"),
        )  # fmt: skip
        answering = asyncio.create_task(rig.answer(ECHO, "HI"))
        assert typed.response.FromString(await going).result == "HI"
        request, message = await answering
        assert message.text == "hi"
        assert (request.model, request.request_id, request.urgency) == ("echo@1", "mine", 3)
        assert ("color", "red") in request.metadata
        assert ("x-request-id", "mine") in tuple(await going.initial_metadata())
        await eventually(lambda: not rig.router.sessions)


async def test_a_stream_is_given_item_by_item() -> None:
    typed = Typed(COUNT)
    async with bench(COUNT) as (rig, client):
        path = "/millstream.models.v1.Count/PredictStream"
        going = stream(client, path, typed.request(text="x").SerializeToString())
        answering = asyncio.create_task(rig.answer(COUNT, *range(100)))
        items = [typed.response.FromString(item) async for item in going]
        assert [item.result for item in items] == list(range(100))
        assert [item.index for item in items] == list(range(100))
        await answering


async def test_the_window_moves_as_the_client_reads() -> None:
    typed = Typed(ECHO_STREAM)
    async with bench(ECHO_STREAM, **{"http2.bdp_probe": 0}) as (rig, client):
        path = "/millstream.models.v1.Echo/PredictStream"
        going = stream(client, path, typed.request(text="x").SerializeToString())
        request = await rig.take()
        item = typed.response(result="x" * 100_000).SerializeToString()
        rig.give(request, 0, *[item] * 10)

        def taken() -> int:
            return max((f.index for f in rig.io.told if isinstance(f, wire.Taken)), default=0)

        await going.read()
        assert taken() <= 5
        for _ in range(9):
            assert await going.read() == item
        await eventually(lambda: taken() == 9)
        rig.end(request, 10)
        assert await going.read() is grpc.aio.EOF


async def test_a_client_that_leaves_cancels_the_call() -> None:
    typed = Typed(COUNT)
    async with bench(COUNT) as (rig, client):
        going = stream(
            client,
            "/millstream.models.Count/PredictStream",
            typed.request(text="x").SerializeToString(),
        )
        await rig.take()
        going.cancel()
        await eventually(lambda: any(isinstance(frame, wire.Cancel) for frame in rig.io.told))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"\x0a\x05ab", "text"),
        (b"\x0a\x02\xff\xfe", "text"),
        (b"\x08\x01", "text"),
        (b"", "text"),
        (b"\x0a\x01a\x12\x01a", "times"),
        (b"\x0a\x01a\x28\x09", "mood"),
        (b"\x0a\x01a\x22\x08\x0a\x06uint16", "vector"),
    ],
    ids=["truncated", "utf-8", "wire type", "missing", "number", "enum", "dtype"],
)
async def test_bad_input_is_refused_by_field_before_any_worker(data: bytes, field: str) -> None:
    async with bench(RICH) as (rig, client):
        error = await fails(call(client, "/millstream.models.v1.Rich/Predict", data))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        fields = [
            v.field for d in details(error) if isinstance(d, BadRequest) for v in d.field_violations
        ]
        assert [one.partition(".")[0] for one in fields] == [field]
        assert rig.io.queued.empty()


async def test_what_the_queue_cannot_carry_is_refused_by_field() -> None:
    typed = Typed(RICH)
    async with bench(RICH) as (rig, client):
        rig.io.refusal = RequestTooLarge.of(2000, 1000)
        message = typed.request(text="x" * 1900, times=1).SerializeToString()
        error = await fails(call(client, "/millstream.models.v1.Rich/Predict", message))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "text" in (error.details() or "")
        assert any(isinstance(d, BadRequest) for d in details(error))


async def test_without_workers_unavailable_then_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Typed(ECHO).request(text="a").SerializeToString()
    async with bench(ECHO) as (rig, client):
        rig.gone(ECHO)
        error = await fails(call(client, "/millstream.models.Echo/Predict", data))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert any(isinstance(detail, RetryInfo) for detail in details(error))
        monkeypatch.setattr("gateway.catalog.REMEMBER", -1.0)
        rig.update()
        for path in ("/millstream.models.Echo/Predict", "/millstream.models.v1.Echo/Predict"):
            error = await fails(call(client, path, data))
            assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_function_that_may_wait_is_queued_without_workers() -> None:
    data = Typed(ECHO).request(text="a").SerializeToString()
    async with bench() as (rig, client):
        rig.announce(ECHO, features=("wait",))
        rig.gone(ECHO)
        going = call(client, "/millstream.models.Echo/Predict", data)
        waiting = asyncio.create_task(rig.io.queued.get())
        request = await asyncio.wait_for(waiting, 30)
        assert request.model == "echo@1"
        going.cancel()


async def test_what_a_function_raises_reaches_the_client_as_it_is() -> None:
    own = status_pb2.Status(code=5, message="no such user")
    own.details.add().Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field="user")]))
    own.details.add(type_url="type.googleapis.com/acme.Own", value=b"\x08\x01")
    data = Typed(ECHO).request(text="a").SerializeToString()
    async with bench(ECHO) as (rig, client):
        going = call(client, "/millstream.models.Echo/Predict", data, ("x-request-id", "mine"))
        request = await rig.take()
        failed = wire.Failed(
            0, 7, "FunctionError", "no such user", code=5, status=own.SerializeToString()
        )
        rig.router.on_reply(request.id, failed)
        error = await fails(going)
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such user")
        assert ("x-request-id", "mine") in tuple(await going.initial_metadata())
        packed = status_pb2.Status.FromString(
            dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
        )
        assert list(packed.details[:2]) == list(own.details)
        assert len(packed.details) == 3


async def test_untyped_calls_serve_the_same_functions() -> None:
    async with bench(ECHO, COUNT) as (rig, client):
        asked = pb.PredictRequest(
            model="echo", inputs={"text": types.Value(string_value="hi")}, request_id="mine",
            priority=pb.PRIORITY_INTERACTIVE, labels={"a": "b"},
        )  # fmt: skip
        going = call(client, "/millstream.v1.Inference/Predict", asked.SerializeToString())
        answering = asyncio.create_task(rig.answer(ECHO, "HI"))
        reply = pb.PredictResponse.FromString(await going)
        request, message = await answering
        assert (reply.result.string_value, message.text) == ("HI", "hi")
        assert (request.request_id, request.urgency, request.labels) == ("mine", 1, (("a", "b"),))
        asked = pb.PredictRequest(model="count@1", inputs={"text": types.Value(string_value="x")})
        going = stream(client, "/millstream.v1.Inference/PredictStream", asked.SerializeToString())
        answering = asyncio.create_task(rig.answer(COUNT, 7, 8))
        items = [pb.PredictResponse.FromString(item) async for item in going]
        assert [(item.result.int_value, item.index) for item in items] == [(7, 0), (8, 1)]
        await answering


@pytest.mark.parametrize(
    ("method", "asked", "code", "says"),
    [
        ("Predict", pb.PredictRequest(model="count"), "INVALID_ARGUMENT", "PredictStream"),
        ("PredictStream", pb.PredictRequest(model="echo"), "INVALID_ARGUMENT", "Predict"),
        ("Predict", pb.PredictRequest(model="echo"), "INVALID_ARGUMENT", "text"),
        ("Predict", pb.PredictRequest(model="nobody"), "NOT_FOUND", "nobody"),
        ("Predict", pb.PredictRequest(), "INVALID_ARGUMENT", "empty"),
        ("Generate", pb.GenerateRequest(model="echo", prompt="x"), "INVALID_ARGUMENT", "Predict"),
    ],
)
async def test_the_wrong_untyped_call_says_what_is_wrong(
    method: str, asked: Any, code: str, says: str
) -> None:
    async with bench(ECHO, COUNT) as (_, client):
        path = f"/millstream.v1.Inference/{method}"
        error = await fails(stream(client, path, asked.SerializeToString()).read())
        assert error.code().name == code
        assert says in (error.details() or "")


async def test_models_are_described_with_their_services() -> None:
    async with bench(ECHO, COUNT) as (_, client):
        data = await call(client, "/millstream.v1.Inference/ListModels", b"")
        models = pb.ListModelsResponse.FromString(data).models
        assert [(m.name, m.service, m.engine) for m in models] == [
            ("count@1", "millstream.models.v1.Count", "app"),
            ("echo@1", "millstream.models.v1.Echo", "app"),
        ]
        asked = pb.GetModelRequest(name="echo").SerializeToString()
        data = await call(client, "/millstream.v1.Inference/GetModel", asked)
        assert pb.GetModelResponse.FromString(data).model.name == "echo@1"


async def test_reflection_shows_a_schema_that_can_be_called() -> None:
    async with bench(RICH) as (rig, _):
        port = rig.server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

        def look() -> tuple[list[str], Any]:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
                base = ProtoReflectionDescriptorDatabase(plain)
                pool = DescriptorPool(base)
                names = sorted(base.get_services())
                return names, pool.FindServiceByName("millstream.models.Rich")

        names, service = await asyncio.to_thread(look)
        assert "millstream.models.Rich" in names
        assert "millstream.models.v1.Rich" in names
        method = service.methods_by_name["Predict"]
        assert method.input_type.full_name == "millstream.models.v1.RichRequest"


async def test_another_protocol_calls_with_plain_values() -> None:
    async with bench(RICH, COUNT) as (rig, _):
        answering = asyncio.create_task(rig.answer(RICH, "ok"))
        call = rig.call("rich", {"text": "a", "tags": ["b"], "mood": "calm"}, Options())
        try:
            assert (await call.result()).result == "ok"
        finally:
            call.close()
        _, message = await answering
        assert list(message.tags) == ["b"]
        data = {"dtype": "float32", "shape": [2], "data": [1.0, 2.0]}
        answering = asyncio.create_task(rig.answer(RICH, "ok"))
        call = rig.call("rich@1", {"text": "a", "vector": data}, Options(), json=True)
        assert json_format.MessageToDict(await call.result()) == {"result": "ok"}
        call.close()
        _, message = await answering
        assert message.vector.data == struct.pack("<2f", 1.0, 2.0)
        answering = asyncio.create_task(rig.answer(COUNT, 1, 2, 3))
        call = rig.call("count", {"text": "a"}, Options(request_id="r"))
        assert await results(call) == [1, 2, 3]
        call.close()
        await answering
        assert not rig.router.sessions


async def test_plain_values_are_refused_by_name() -> None:
    async with bench(RICH) as (rig, _):
        for inputs, field in (({"text": 1}, "text"), ({}, "text"), ({"text": "", "no": 1}, "no")):
            with pytest.raises(InvalidRequest) as caught:
                rig.call("rich", inputs, Options(), json=True)
            assert caught.value.field == field
        with pytest.raises(UnknownModel):
            rig.call("poor", {}, Options())


async def test_two_calls_of_one_name_and_a_worker_that_talks_nonsense() -> None:
    async with bench(ECHO) as (rig, _):
        call = rig.call("echo", {"text": "a"}, Options(request_id="r"))
        with pytest.raises(DuplicateRequest):
            rig.call("echo", {"text": "a"}, Options(request_id="r"))
        request = await rig.take()
        rig.give(request, 0, b"\xff\xff")
        rig.end(request, 1)
        with pytest.raises(InternalError):
            await call.result()
        call.close()
