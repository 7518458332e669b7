"""Each feature of BlazeRPC 2.2.1 (its row in the issue's facts), here across a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from millstream import Client, SyncClient
from shared.errors import InvalidRequest
from tests.e2e.apps.batched import app as batched
from tests.e2e.apps.blazerpc import app as blaze
from tests.e2e.apps.serving import PACKAGE, Foreign, Serving, serving
from tests.eventually import eventually, until

APP = "tests.e2e.apps.blazerpc:app"
BATCHED = "tests.e2e.apps.batched:app"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("features")) as stack:
        workers = {"blaze": APP, "torch": "tests.e2e.apps.torches:app", "batched": BATCHED}
        for name, app in workers.items():
            stack.spawn(name, app)
        stack.until_served(*workers)
        yield stack


@pytest.fixture
def client(stack: Serving) -> Iterator[SyncClient]:
    with stack.client() as client:
        yield client


@pytest.fixture
def foreign(stack: Serving) -> Iterator[Foreign]:
    with Foreign(stack.target) as foreign:
        yield foreign


def test_an_app_has_models_and_state_and_middleware() -> None:
    assert blaze.models["echo@1"].served_name == "echo@1"
    assert batched.models["together@1"].batch is not None
    assert blaze.middleware
    blaze.state.something = 1
    assert blaze.state.something == 1


def test_annotations_become_typed_messages(foreign: Foreign) -> None:
    request = foreign.pool.FindMessageTypeByName(f"{PACKAGE}.KindsRequest")
    assert [(f.name, f.number, f.type) for f in request.fields] == [
        ("text", 1, Field.TYPE_STRING),
        ("whole", 2, Field.TYPE_INT64),
        ("real", 3, Field.TYPE_DOUBLE),
        ("truth", 4, Field.TYPE_BOOL),
        ("raw", 5, Field.TYPE_BYTES),
        ("many", 6, Field.TYPE_INT64),
    ]
    assert request.fields_by_name["many"].is_repeated
    given: dict[str, Any] = {
        "text": "ü", "whole": -(2**62), "real": 0.1, "truth": True, "raw": b"\xff", "many": [1, 2],
    }  # fmt: skip
    answer = foreign.unary("Kinds", foreign.message("KindsRequest", **given))
    assert {name: getattr(answer.result, name) for name in given} == given


def test_tensors_are_messages_of_shape_dtype_and_bytes(foreign: Foreign) -> None:
    pairs = numpy.arange(6, dtype=numpy.float32).reshape(3, 2)
    request = foreign.message("DoubleRequest")
    request.pairs.dtype = "float32"
    request.pairs.shape.extend(pairs.shape)
    request.pairs.data = pairs.tobytes()
    result = foreign.unary("Double", request).result
    assert (result.dtype, list(result.shape)) == ("float32", [3, 2])
    assert result.data == (pairs * 2).tobytes()


def test_the_wire_is_a_method_with_numbered_parameters_and_result_1(foreign: Foreign) -> None:
    unary = foreign.pool.FindServiceByName(f"{PACKAGE}.Echo").methods_by_name["Predict"]
    assert [(f.name, f.number) for f in unary.input_type.fields] == [("text", 1), ("times", 2)]
    assert [(f.name, f.number) for f in unary.output_type.fields] == [("result", 1)]
    service = foreign.pool.FindServiceByName(f"{PACKAGE}.Count")
    described = FileDescriptorProto()
    service.file.CopyToProto(described)
    (method,) = described.service[0].method
    assert (method.name, method.server_streaming) == ("PredictStream", True)


@pytest.mark.parametrize(
    ("service", "given"),
    [("Count", {"to": 3}), ("Words", {"text": "0 1 2"}), ("Plain", {"to": 3})],
)
def test_generators_stream_a_message_a_yield(
    foreign: Foreign, service: str, given: dict[str, Any]
) -> None:
    items = foreign.stream(service, foreign.message(f"{service}Request", **given))
    assert [(one.index, one.result) for one in items] == [(0, "0"), (1, "1"), (2, "2")]


@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
@pytest.mark.parametrize("service", ["Endless", "EndlessSync"])
def test_a_client_that_ends_a_call_ends_the_function(
    stack: Serving, client: SyncClient, service: str, how: str
) -> None:
    name = f"{service} {how}"
    with Foreign(stack.target, options=[("grpc.use_local_subchannel_pool", 1)]) as foreign:
        request = foreign.message(f"{service}Request", name=name)
        items = foreign.stream(service, request, timeout=3 if how == "deadline" else 30)
        next(items)
        if how == "cancel":
            items.cancel()
        elif how == "deadline":
            with pytest.raises(grpc.RpcError) as caught:
                for _ in items:
                    pass
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            foreign.channel.close()
    eventually(lambda: client.predict("seen").get(f"ended {name}"), "finally ran")
    if service == "Endless":
        assert client.predict("seen")[f"cancelled {name}"] == 1


async def test_calls_that_wait_together_run_as_one_batch(stack: Serving, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Client(stack.target) as client:
        await client.predict("sizes")
        calls = asyncio.gather(
            *(client.predict("together-held", x=number, gate=str(gate)) for number in range(40))
        )
        await until(lambda: stack.open_calls("together-held@1") == 40, "all of them are open")
        gate.touch()
        assert await calls == [2 * number for number in range(40)]
        sizes = await client.predict("sizes")
    assert sum(sizes) == 40
    assert 8 <= max(sizes) <= 32


def test_a_function_gets_context_dependencies_and_state(client: SyncClient) -> None:
    function = client.function(
        "told", deadline=20, request_id="told-1", metadata={"x-user": "Mila"}
    )
    told = function.predict()
    assert 0 < told.pop("deadline") <= 20
    assert told == {
        "user": "user Mila", "model": "told@1", "request": "told-1", "motto": "every token once",
    }  # fmt: skip


async def test_the_client_predicts_and_streams_without_a_registry(stack: Serving) -> None:
    async with Client(stack.target) as client:
        assert await client.predict("echo", text="ab") == "abab"
        assert [item async for item in client.stream("words", text="a b")] == ["a", "b"]


def test_torch_tensors_go_in_and_out(client: SyncClient) -> None:
    numbers = numpy.arange(4, dtype=numpy.float32)
    answer = client.predict("softplus", x=numbers)
    numpy.testing.assert_allclose(answer, numpy.log1p(numpy.exp(numbers)), rtol=1e-6)


async def test_a_batch_may_stream(stack: Serving) -> None:
    async def items(client: Client, n: int) -> list[int]:
        return [item async for item in client.stream("countdown", n=n)]

    async with Client(stack.target) as client:
        assert await asyncio.gather(*(items(client, n) for n in (3, 0, 1))) == [[3, 2, 1], [], [1]]


def test_arrays_are_stacked_along_axis_0(stack: Serving) -> None:
    async def calls() -> list[Any]:
        async with Client(stack.target) as client:
            pairs = [numpy.array([n, 1], numpy.float32) for n in range(8)]
            return await asyncio.gather(
                *(client.predict("together-arrays", pair=pair) for pair in pairs)
            )

    assert [float(one) for one in asyncio.run(calls())] == [n + 1 for n in range(8)]


def test_tensors_are_held_to_their_contract(client: SyncClient) -> None:
    for wrong, field in (
        (numpy.ones((3, 2), numpy.float64), "pairs.dtype"),
        (numpy.ones((3, 3), numpy.float32), "pairs.shape"),
        (numpy.ones(3, numpy.float32), "pairs.shape"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            client.predict("double", pairs=wrong)
        assert caught.value.field == field
