"""KServe's protocol over functions: parameters and results as tensors, with grpcio."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from gateway.app import App
from gateway.kserve import inference_pb2 as pb
from tests.integration.function_app import png
from tests.integration.function_peer import gateway, nats_and_functions
from tests.integration.grpc_peer import channel, eventually
from tests.integration.test_kserve import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_and_functions(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(nats: str) -> AsyncIterator[App]:
    async with gateway(nats) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def client(app: App) -> AsyncIterator[Client]:
    async with channel(app.grpc_port) as connection:
        yield Client(connection)


def framed(*items: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def ask(
    model: str, *tensors: tuple[str, str, list[int], bytes], version: str = "", id: str = "r1"
) -> pb.ModelInferRequest:
    """A request; each tensor is its name, datatype, shape and raw contents."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return request


def text(name: str, value: str) -> tuple[str, str, list[int], bytes]:
    return name, "BYTES", [1], framed(value.encode())


def number(name: str, value: int) -> tuple[str, str, list[int], bytes]:
    return name, "INT64", [1], struct.pack("<q", value)


def result(response: pb.ModelInferResponse) -> tuple[str, list[int], bytes]:
    (output,) = response.outputs
    assert output.name == "result"
    (raw,) = response.raw_output_contents
    return output.datatype, list(output.shape), raw


async def test_functions_are_described(client: Client) -> None:
    said = await client.call("ModelMetadata", pb.ModelMetadataRequest(name="echo", version="1"))
    assert (said.name, list(said.versions), said.platform) == ("echo", ["1", "2"], "app")
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in said.inputs]
    assert tensors == [("text", "BYTES", [1]), ("times", "INT64", [1])]
    assert [(tensor.name, tensor.datatype) for tensor in said.outputs] == [("result", "BYTES")]
    said = await client.call("ModelMetadata", pb.ModelMetadataRequest(name="double@1"))
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in said.inputs]
    assert tensors == [("vector", "FP32", [-1]), ("by", "FP64", [1])]
    config = (await client.call("ModelConfig", pb.ModelConfigRequest(name="double"))).config
    assert [(one.name, one.data_type, one.optional) for one in config.input] == [
        ("vector", pb.TYPE_FP32, False), ("by", pb.TYPE_FP64, True),
    ]  # fmt: skip
    assert not config.model_transaction_policy.decoupled
    config = (await client.call("ModelConfig", pb.ModelConfigRequest(name="count"))).config
    assert config.model_transaction_policy.decoupled


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("echo", "", True), ("echo", "1", True), ("echo@1", "", True), ("echo@1", "1", True),
        ("echo@1", "2", False), ("echo", "3", False), ("none", "1", False),
    ],
)  # fmt: skip
async def test_readiness(client: Client, name: str, version: str, ready: bool) -> None:
    asked = pb.ModelReadyRequest(name=name, version=version)
    assert (await client.call("ModelReady", asked)).ready is ready


@pytest.mark.parametrize(
    ("model", "version", "served", "said"),
    [("echo", "", "2", b"AB"), ("echo", "1", "1", b"ab"), ("echo@1", "", "1", b"ab")],
)
async def test_one_answer(
    client: Client, model: str, version: str, served: str, said: bytes
) -> None:
    response = await client.call("ModelInfer", ask(model, text("text", "ab"), version=version))
    assert (response.model_name, response.model_version, response.id) == (model, served, "r1")
    assert result(response) == ("BYTES", [1], framed(said))


async def test_arrays(client: Client) -> None:
    vector = struct.pack("<3f", 1, 2, 3)
    by = ("by", "FP64", [1], struct.pack("<d", 3))
    response = await client.call("ModelInfer", ask("double", ("vector", "FP32", [3], vector), by))
    assert result(response) == ("FP32", [3], struct.pack("<3f", 3, 6, 9))
    request = pb.ModelInferRequest(model_name="double")
    tensor = request.inputs.add(name="vector", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([1, 2])
    tensor = request.inputs.add(name="by", datatype="INT32", shape=[1])
    tensor.contents.int_contents.append(5)
    assert result(await client.call("ModelInfer", request))[2] == struct.pack("<2f", 5, 10)


async def test_every_kind_of_parameter(client: Client) -> None:
    request = ask(
        "rich", text("text", "ä"), ("flag", "BOOL", [1], b"\1"),
        ("number", "FP64", [1], struct.pack("<d", 1.5)), ("data", "BYTES", [1], framed(b"\0\xff")),
        ("tags", "BYTES", [2], framed(b"a", b"b")), text("mood", "wild"),
        text("when", "2026-01-02T03:04:05Z"), text("point", '{"x": 1, "label": "p"}'),
        ("vector", "FP32", [1], struct.pack("<f", 7)), ("picture", "BYTES", [1], framed(png(0))),
        text("anything", '[1, null]'),
    )  # fmt: skip
    request.inputs[9].parameters["content_type"].string_param = "image/x-own"
    datatype, shape, raw = result(await client.call("ModelInfer", request))
    assert (datatype, shape) == ("BYTES", [1])
    assert json.loads(raw[4:]) == {
        "text": "ä", "flag": "True", "number": "1.5", "data": "00ff", "tags": "a,b",
        "mood": "wild", "when": "2026-01-02T03:04:05+00:00", "point": "1.0 p", "vector": "[7.0]",
        "picture": f"image/x-own {len(png(0))}", "anything": "[1, None]",
    }  # fmt: skip


async def test_media_say_what_they_are(client: Client) -> None:
    response = await client.call("ModelInfer", ask("picture", number("shade", 9)))
    assert result(response) == ("BYTES", [1], framed(png(9)))
    assert response.outputs[0].parameters["content_type"].string_param == "image/png"


async def test_nothing_is_no_output(client: Client) -> None:
    assert not (await client.call("ModelInfer", ask("nothing"))).outputs


def _output(name: str) -> pb.ModelInferRequest:
    request = ask("echo", text("text", "a"))
    request.outputs.add(name=name)
    return request


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (ask("none"), "NOT_FOUND", "none"),
        (ask("echo", version="9"), "NOT_FOUND", "echo@9"),
        (ask("echo@1", version="2"), "INVALID_ARGUMENT", "version"),
        (ask("echo"), "INVALID_ARGUMENT", "text"),
        (ask("echo", text("no", "a")), "INVALID_ARGUMENT", "no"),
        (ask("echo", text("text", "a"), text("text", "a")), "INVALID_ARGUMENT", "twice"),
        (ask("echo", number("text", 1)), "INVALID_ARGUMENT", "INT64"),
        (ask("echo", ("text", "BYTES", [2], framed(b"a"))), "INVALID_ARGUMENT", "shape"),
        (ask("echo", ("text", "BYTES", [2], framed(b"a", b"b"))), "INVALID_ARGUMENT", "one"),
        (ask("echo", ("text", "BYTES", [1], b"\5\0\0\0a")), "INVALID_ARGUMENT", "truncated"),
        (ask("echo", ("text", "BYTES", [1], b"\5")), "INVALID_ARGUMENT", "text"),
        (ask("echo", ("text", "BYTES", [1], framed(b"\xff"))), "INVALID_ARGUMENT", "text"),
        (ask("double", ("vector", "FP64", [1], b"\0" * 8)), "INVALID_ARGUMENT", "float32"),
        (ask("double", ("vector", "FP32", [2], b"\0" * 4)), "INVALID_ARGUMENT", "4 bytes"),
        (ask("double", ("vector", "FP32", [-1], b"\0" * 4)), "INVALID_ARGUMENT", "shape"),
        (ask("rich", text("text", "a"), text("point", "{")), "INVALID_ARGUMENT", "point"),
        (ask("rich", text("text", "a"), text("mood", "odd")), "INVALID_ARGUMENT", "calm"),
        (_output("nope"), "INVALID_ARGUMENT", "nope"),
        (ask("count", number("n", 1)), "UNIMPLEMENTED", "decoupled"),
        (ask("refuse"), "NOT_FOUND", "no such user"),
    ],
)  # fmt: skip
async def test_what_is_refused(
    client: Client, request_: pb.ModelInferRequest, status: str, says: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("ModelInfer", request_)
    assert caught.value.code().name == status
    assert says in (caught.value.details() or "")


async def test_a_stream_runs_functions_side_by_side_and_survives_errors(client: Client) -> None:
    call = client.stream()
    for name in "abc":
        asked = ask("count", number("n", 5), id=name)
        asked.parameters["triton_enable_empty_final_response"].bool_param = True
        await call.write(asked)
    await call.write(ask("break", number("n", 1), id="broken"))
    await call.write(ask("echo", text("text", "x"), id="one"))
    found: dict[str, list[Any]] = {}
    errors, open_ = {}, {"a", "b", "c", "broken", "one"}
    async with asyncio.timeout(30):
        while open_:
            message = await call.read()
            said = message.infer_response
            if message.error_message:
                errors[said.id] = message.error_message
            elif said.outputs:
                found.setdefault(said.id, []).append(result(said)[2])
            if message.error_message or said.parameters["triton_final_response"].bool_param:
                open_.remove(said.id)
    items = [framed(str(n).encode()) for n in range(5)]
    one = struct.pack("<q", 0)
    assert found == {"a": items, "b": items, "c": items, "broken": [one], "one": [framed(b"X")]}
    assert errors == {"broken": "broken on purpose"}
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_cancelling_and_timeouts_end_calls(app: App, client: Client) -> None:
    call = client.stream()
    await call.write(ask("hold"))
    assert result((await call.read()).infer_response)[2] == struct.pack("<q", 0)
    call.cancel()
    await eventually(lambda: not app.link.router.sessions, 10.0)
    asked = ask("wait")
    asked.parameters["timeout"].int64_param = 50_000
    for request, options in ((asked, {}), (ask("wait"), {"timeout": 0.1})):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ModelInfer", request, **options)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: not app.link.router.sessions, 10.0)
