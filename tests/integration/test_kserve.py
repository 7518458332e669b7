"""inference.GRPCInferenceService against real workers, with a client that is not ours (grpcio)."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from gateway import health
from gateway.app import App
from gateway.kserve import inference_pb2 as pb
from tests.integration.grpc_peer import channel, eventually
from tests.integration.http_peer import gateway, nats_and_workers, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Client:
    """The service by its method names."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self._connection = connection

    async def call(self, method: str, request: Any, **options: Any) -> Any:
        reply = getattr(pb, f"{method}Response")
        multi = self._connection.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return await multi(request, **options)

    def stream(self, **options: Any) -> grpc.aio.StreamStreamCall:
        multi = self._connection.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        return multi(**options)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_workers(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats, http_port=None) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def client(app: App) -> AsyncIterator[Client]:
    async with channel(app.grpc_port) as connection:
        yield Client(connection)


def ask(
    text: str = "hi",
    *,
    raw: bool = True,
    sampling: dict[str, Any] | None = None,
    model: str = "sim",
    **flags: bool,
) -> pb.ModelInferRequest:
    """A request; every flag is a BOOL tensor."""
    request = pb.ModelInferRequest(model_name=model, id="r1")
    strings = {"text_input": text}
    if sampling is not None:
        strings["sampling_parameters"] = json.dumps(sampling)
    for name, value in strings.items():
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        if raw:
            request.raw_input_contents.append(struct.pack("<I", len(value)) + value.encode())
        else:
            tensor.contents.bytes_contents.append(value.encode())
    for name, flag in flags.items():
        tensor = request.inputs.add(name=name, datatype="BOOL", shape=[1])
        if raw:
            request.raw_input_contents.append(bytes([flag]))
        else:
            tensor.contents.bool_contents.append(flag)
    return request


def outputs(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """What the tensors hold."""
    found: dict[str, list[Any]] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values: list[Any] = []
        if tensor.datatype == "UINT32":
            values = list(struct.unpack(f"<{len(raw) // 4}I", raw))
        else:
            while raw:
                (size,) = struct.unpack_from("<I", raw)
                values.append(raw[4 : 4 + size].decode())
                raw = raw[4 + size :]
        assert list(tensor.shape) == [len(values)]
        found[tensor.name] = values
    return found


async def streamed(
    call: grpc.aio.StreamStreamCall, count: int
) -> list[pb.ModelStreamInferResponse]:
    """Responses up to the `count`-th final one or error."""
    found: list[pb.ModelStreamInferResponse] = []
    async with asyncio.timeout(30):
        while count:
            found.append(await call.read())
            last = found[-1]
            final = last.infer_response.parameters
            if last.error_message or final["triton_final_response"].bool_param:
                count -= 1
    return found


async def test_the_server_and_its_models(client: Client) -> None:
    assert (await client.call("ServerLive", pb.ServerLiveRequest())).live
    assert (await client.call("ServerReady", pb.ServerReadyRequest())).ready
    assert (await client.call("ServerMetadata", pb.ServerMetadataRequest())).name == "millstream"
    for name, version, ready in (("sim", "", True), ("sim", "2", False), ("none", "", False)):
        asked = pb.ModelReadyRequest(name=name, version=version)
        assert (await client.call("ModelReady", asked)).ready is ready
    said = await client.call("ModelMetadata", pb.ModelMetadataRequest(name="sim"))
    assert said.platform == "sim"
    assert {tensor.name for tensor in said.inputs} >= {"text_input", "stream"}
    config = (await client.call("ModelConfig", pb.ModelConfigRequest(name="sim"))).config
    assert config.model_transaction_policy.decoupled
    assert {tensor.name: tensor.optional for tensor in config.input}["text_input"] is False
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("ModelMetadata", pb.ModelMetadataRequest(name="none"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("raw", [True, False])
async def test_a_whole_answer(client: Client, raw: bool) -> None:
    request = ask(
        raw=raw,
        sampling={"max_tokens": "3", "temperature": "0.1"},
        exclude_input_in_output=True,
        return_finish_reason=True,
        return_num_input_tokens=True,
        return_num_output_tokens=True,
    )
    response = await client.call("ModelInfer", request)
    assert response.id == "r1"
    assert outputs(response) == {
        "text_output": [" 0 1 2"],
        "finish_reason": ["length"],
        "num_input_tokens": [2],
        "num_output_tokens": [3],
    }


async def test_the_input_goes_before_a_whole_answer_by_default(client: Client) -> None:
    response = await client.call("ModelInfer", ask(sampling={"max_tokens": 1}))
    assert outputs(response) == {"text_output": ["hi 0"]}


async def test_without_parameters_there_are_sixteen_tokens(client: Client) -> None:
    response = await client.call("ModelInfer", ask())
    assert outputs(response)["text_output"][0].endswith(" 15")


async def test_parameters_of_the_request_do_as_well(client: Client) -> None:
    request = ask()
    request.parameters["max_tokens"].int64_param = 2
    request.parameters["priority"].uint64_param = 1
    assert outputs(await client.call("ModelInfer", request)) == {"text_output": ["hi 0 1"]}


async def test_several_choices_of_a_whole_answer(client: Client) -> None:
    request = ask(sampling={"max_tokens": 2, "n": 3}, exclude_input_in_output=True)
    assert outputs(await client.call("ModelInfer", request)) == {"text_output": [" 0 1"] * 3}


async def test_named_outputs_are_the_ones_given(client: Client) -> None:
    request = ask(sampling={"max_tokens": 1})
    request.outputs.add(name="finish_reason")
    assert outputs(await client.call("ModelInfer", request)) == {"finish_reason": ["length"]}


def _changed(**fields: Any) -> pb.ModelInferRequest:
    request = ask()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def _reshaped(**fields: Any) -> pb.ModelInferRequest:
    request = ask()
    for name, value in fields.items():
        if name == "shape":
            request.inputs[0].shape[:] = value
        else:
            setattr(request.inputs[0], name, value)
    return request


def _raw(data: list[bytes]) -> pb.ModelInferRequest:
    request = ask()
    request.raw_input_contents[:] = data
    return request


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (ask(model="none"), "NOT_FOUND", "none"),
        (ask(""), "INVALID_ARGUMENT", "empty"),
        (ask(stream=True), "INVALID_ARGUMENT", "ModelStreamInfer"),
        (ask(sampling={"temperature": 9}), "INVALID_ARGUMENT", "temperature is 9"),
        (ask(sampling={"temperature": "warm"}), "INVALID_ARGUMENT", "warm"),
        (ask(sampling={"tempo": 1}), "INVALID_ARGUMENT", "tempo"),
        (ask(sampling={"max_tokens": -1}), "INVALID_ARGUMENT", "max_tokens"),
        (ask(sampling={"stop": [1]}), "INVALID_ARGUMENT", "stop"),
        (ask(sampling={"lora_name": "\ud83d"}), "INVALID_ARGUMENT", "lora_name"),
        (ask(nope=True), "INVALID_ARGUMENT", "nope"),
        (ask("x" * 40000), "INVALID_ARGUMENT", "40000"),
        (_changed(model_version="2"), "INVALID_ARGUMENT", "version"),
        (_reshaped(shape=[2]), "INVALID_ARGUMENT", "BYTES[1]"),
        (_reshaped(datatype="FP32"), "INVALID_ARGUMENT", "BYTES[1]"),
        (_reshaped(name="text"), "INVALID_ARGUMENT", "text"),
        (_raw([b"\xff\0\0\0hi"]), "INVALID_ARGUMENT", "one element"),
        (_raw([b"\x02\0\0\0\xff\xfe"]), "INVALID_ARGUMENT", "UTF-8"),
        (_raw([b"", b""]), "INVALID_ARGUMENT", "2 entries"),
        (pb.ModelInferRequest(model_name="sim"), "INVALID_ARGUMENT", "missing"),
    ],
)
async def test_refusals(
    client: Client, request_: pb.ModelInferRequest, status: str, says: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("ModelInfer", request_)
    assert caught.value.code() is grpc.StatusCode[status]
    assert says in str(caught.value.details())


async def test_a_streamed_answer(client: Client) -> None:
    call = client.stream()
    asked = ask(sampling={"max_tokens": 5}, stream=True, return_finish_reason=True)
    await call.write(asked)
    pieces = [message.infer_response for message in await streamed(call, 1)]
    assert "".join(outputs(piece)["text_output"][0] for piece in pieces) == " 0 1 2 3 4"
    assert {outputs(piece)["finish_reason"][0] for piece in pieces[:-1]} == {"None"}
    assert outputs(pieces[-1])["finish_reason"] == ["length"]
    assert {piece.id for piece in pieces} == {"r1"}
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("stream", [True, False])
async def test_an_empty_final_response_where_it_is_asked_for(client: Client, stream: bool) -> None:
    call = client.stream()
    asked = ask(sampling={"max_tokens": 2}, stream=stream)
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    await call.write(asked)
    *pieces, last = [message.infer_response for message in await streamed(call, 1)]
    assert all(piece.outputs for piece in pieces)
    assert not last.outputs
    assert last.id == "r1"
    call.cancel()


async def test_a_stream_multiplexes_and_survives_errors(client: Client) -> None:
    call = client.stream()
    for number in range(8):
        asked = ask(sampling={"max_tokens": 9 if number != 3 else 0}, stream=True)
        asked.id = str(number)
        await call.write(asked)
    messages = await streamed(call, 8)
    texts = dict.fromkeys(map(str, range(8)), "")
    for message in messages:
        if message.error_message:
            assert message.infer_response.id == "3"
            assert "max_tokens is 0" in message.error_message
        else:
            texts[message.infer_response.id] += outputs(message.infer_response)["text_output"][0]
    whole = "".join(f" {token}" for token in range(9))
    assert texts == {number: "" if number == "3" else whole for number in texts}
    call.cancel()


async def test_cancelling_a_stream_cancels_what_runs(app: App, client: Client) -> None:
    call = client.stream()
    for _ in range(3):
        await call.write(ask(sampling={"max_tokens": 20000}, stream=True))
    await eventually(lambda: running(app) == 3)
    call.cancel()
    await eventually(lambda: not app.link.router.sessions, 10.0)
    await eventually(lambda: running(app) == 0, 10.0)


async def test_a_client_that_has_said_all_still_gets_its_answers(client: Client) -> None:
    call = client.stream()
    await call.write(ask(sampling={"max_tokens": 50}, stream=True))
    await call.done_writing()
    assert len(await streamed(call, 1)) > 1
    assert await call.read() is grpc.aio.EOF


async def test_a_timeout_of_the_request_and_of_the_call(app: App, client: Client) -> None:
    asked = ask(sampling={"max_tokens": 20000})
    asked.parameters["timeout"].int64_param = 100_000
    for request, options in ((asked, {}), (ask(sampling={"max_tokens": 20000}), {"timeout": 0.1})):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ModelInfer", request, **options)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: not app.link.router.sessions, 10.0)
    call = client.stream()
    asked = ask(sampling={"max_tokens": 20000}, stream=True)
    asked.parameters["timeout"].int64_param = 100_000
    await call.write(asked)
    assert "0.1 s" in (await streamed(call, 1))[-1].error_message
    call.cancel()


async def test_n_cannot_be_streamed(client: Client) -> None:
    call = client.stream()
    await call.write(ask(sampling={"n": 2}, stream=True))
    assert "streamed" in (await streamed(call, 1))[0].error_message
    call.cancel()


def _services(port: int) -> set[str]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as connection:
        database = ProtoReflectionDescriptorDatabase(connection)
        file = database.FindFileContainingSymbol("inference.ModelInferRequest")
        assert file.package == "inference"
        return set(database.get_services())


async def test_health_and_reflection_know_the_service(app: App) -> None:
    async with channel(app.grpc_port) as connection:
        check = connection.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health.CheckRequest.SerializeToString,
            response_deserializer=health.CheckResponse.FromString,
        )
        asked = health.CheckRequest(service="inference.GRPCInferenceService")
        assert (await check(asked)).status == health.SERVING
    assert "inference.GRPCInferenceService" in await asyncio.to_thread(_services, app.grpc_port)
