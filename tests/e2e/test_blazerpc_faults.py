"""Each fault of BlazeRPC 2.2.1 (its list in the issue's facts), which Millstream must not have."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ResourceInfo
from google.rpc.status_pb2 import Status

from gateway import health
from millstream import Client, SyncClient
from shared.errors import EngineError, FunctionError, InvalidRequest
from tests.e2e.apps.serving import PACKAGE, Foreign, Serving, held, serving
from tests.eventually import eventually, until

pytestmark = pytest.mark.alone

BLAZE = "tests.e2e.apps.blazerpc:app"
ECHO = f"/{PACKAGE}.Echo/Predict"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("faults")) as stack:
        workers = {"blaze": BLAZE, "batched": "tests.e2e.apps.batched:app"}
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


def refusal(foreign: Foreign, path: str, data: bytes) -> tuple[grpc.StatusCode, str]:
    """The status of a call with these bytes, and the field that is at fault."""
    with pytest.raises(grpc.RpcError) as caught:
        foreign.raw(path, data)
    trailers = dict(caught.value.trailing_metadata())
    for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        bad = BadRequest()
        if detail.Unpack(bad):
            return caught.value.code(), bad.field_violations[0].field
    return caught.value.code(), ""


# ---- health, reflection, metrics ----------------------------------------------------------------


def test_health_is_not_always_unknown(foreign: Foreign) -> None:
    check = foreign.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health.CheckRequest.SerializeToString,
        health.CheckResponse.FromString,
    )
    assert check(health.CheckRequest(service=f"{PACKAGE}.Echo"), timeout=10).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        check(health.CheckRequest(service=f"{PACKAGE}.Nope"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_is_not_always_unknown(foreign: Foreign) -> None:
    assert {f"{PACKAGE}.Echo", f"{PACKAGE}.Double"} <= set(foreign.services())
    file = foreign.pool.FindServiceByName(f"{PACKAGE}.Echo").file
    assert {"EchoRequest", "EchoResponse"} <= set(file.message_types_by_name)


def test_metrics_record_calls(stack: Serving, client: SyncClient) -> None:
    def value(text: str, sample: str) -> float:
        found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(sample)]
        return float(found[0]) if found else 0.0

    answered = 'millstream_gateway_requests_total{model="real@1"'
    called = 'millstream_function_calls_total{model="real@1",outcome="ok"}'
    before = value(stack.metrics(), answered), value(stack.metrics("blaze"), called)
    for _ in range(3):
        client.predict("real", x=1.0)
    eventually(lambda: value(stack.metrics("blaze"), called) == before[1] + 3, "the worker counts")
    eventually(lambda: value(stack.metrics(), answered) == before[0] + 3, "the gateway counts")


# ---- errors -------------------------------------------------------------------------------------


def test_a_status_that_is_raised_reaches_the_client(client: SyncClient, foreign: Foreign) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        foreign.unary("Fail", foreign.message("FailRequest", how="grpclib"))
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.NOT_FOUND, "no user 7",
    )  # fmt: skip
    trailers = dict(caught.value.trailing_metadata())
    details = Status.FromString(trailers["grpc-status-details-bin"]).details
    resource = ResourceInfo()
    assert any(one.Unpack(resource) for one in details)
    assert resource.resource_name == "7"
    with pytest.raises(FunctionError, match="not yet") as raised:
        client.predict("fail", how="app")
    assert raised.value.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


def test_a_bug_in_a_function_is_internal_and_tells_no_secrets(client: SyncClient) -> None:
    with pytest.raises(EngineError, match="KeyError") as caught:
        client.predict("fail", how="bug")
    assert "secret" not in caught.value.message


# ---- batches ------------------------------------------------------------------------------------


async def test_a_batch_is_one_call_of_its_function(stack: Serving) -> None:
    async with Client(stack.target) as client:
        await client.predict("together", x=0)
        await client.predict("sizes")
        await asyncio.gather(*(client.predict("together", x=n) for n in range(32)))
        assert len(await client.predict("sizes")) < 16


@pytest.mark.parametrize("name", ["nap", "together-nap"])
async def test_eight_calls_of_300_ms_take_little_more_than_one(stack: Serving, name: str) -> None:
    took = []
    async with Client(stack.target) as client:
        await client.predict(name, seconds=0.0)
        for _ in range(3):
            started = time.monotonic()
            await asyncio.gather(*(client.predict(name, seconds=0.3) for _ in range(8)))
            took.append(time.monotonic() - started)
    assert min(took) < 1.2  # One by one it is 2.4 each time, so that the best one tells.


def test_a_lone_call_waits_for_no_window(client: SyncClient) -> None:
    def seconds(name: str, **inputs: Any) -> float:
        started = time.perf_counter()
        client.predict(name, **inputs)
        return time.perf_counter() - started

    for _ in range(30):
        client.predict("together-fast", x=1)
    # In turns: what slows the machine down slows both.
    pairs = [(seconds("together-fast", x=1), seconds("real", x=1.0)) for _ in range(30)]
    batched, plain = map(statistics.median, zip(*pairs, strict=True))
    assert batched < plain + 0.005


async def test_one_bad_item_fails_alone(stack: Serving) -> None:
    async with Client(stack.target) as client:
        calls = (client.predict("together", x=number) for number in (1, -1, 2, 3))
        done = await asyncio.gather(*calls, return_exceptions=True)
    assert [one for one in done if not isinstance(one, Exception)] == [2, 4, 6]
    assert isinstance(done[1], FunctionError)
    assert done[1].code == grpc.StatusCode.OUT_OF_RANGE.value[0]


async def test_a_call_cancelled_in_the_queue_does_not_run(stack: Serving, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Client(stack.target) as client:
        first = await held(client, gate)
        second = asyncio.ensure_future(client.predict("one-by-one", name="second"))
        await until(lambda: stack.open_calls("one-by-one@1") == 2, "the second waits")
        second.cancel()
        await until(lambda: stack.open_calls("one-by-one@1") == 1, "the second is cancelled")
        gate.touch()
        assert await first == "first"
        assert await client.predict("one-by-one", name="third") == "third"
        assert "ran second" not in await client.predict("seen")


@pytest.mark.parametrize("name", ["fail", "together-cancelled"])
def test_a_cancelled_error_inside_a_function_ends_its_call_only(
    client: SyncClient, name: str
) -> None:
    bad: dict[str, Any] = {"how": "cancelled"} if name == "fail" else {"x": -1}
    for _ in range(3):
        with pytest.raises(EngineError):
            client.predict(name, **bad)
    assert client.predict("echo", text="a") == "aa"
    assert client.predict("together-cancelled", x=1) == 1


# ---- input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "data", "field"),
    [
        pytest.param(ECHO, b"\x0a\x05ab", "text", id="truncated"),
        pytest.param(ECHO, b"\x0a", "text", id="no length"),
        pytest.param(ECHO, b"\x0f", "", id="bad tag"),
        pytest.param(ECHO, b"\x0a\x02\xff\xfe", "text", id="bad UTF-8"),
        pytest.param(ECHO, b"\x08\x05", "text", id="wrong wire type"),
        pytest.param(ECHO, b"\x0a\x01a\x12\x01a", "times", id="wrong wire type, second"),
        pytest.param(ECHO, b"", "text", id="missing"),
    ],
)
def test_malformed_messages_are_invalid_arguments(
    foreign: Foreign, path: str, data: bytes, field: str
) -> None:
    assert refusal(foreign, path, data) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "field"),
    [
        ("float32", [1, 2], bytes(7), "pairs.data"),
        ("float64", [1, 2], bytes(16), "pairs.dtype"),
        ("float32", [1, 3], bytes(12), "pairs.shape"),
        ("float32", [2], bytes(8), "pairs.shape"),
        ("float32", [2**40, 2], b"", "pairs.data"),
        ("nonsense", [1, 2], bytes(8), "pairs.dtype"),
    ],
)
def test_wrong_tensors_are_invalid_arguments(
    foreign: Foreign, dtype: str, shape: list[int], data: bytes, field: str
) -> None:
    request = foreign.message("DoubleRequest")
    request.pairs.dtype, request.pairs.data = dtype, data
    request.pairs.shape.extend(shape)
    code, at = refusal(foreign, f"/{PACKAGE}.Double/Predict", request.SerializeToString())
    assert (code, at.split("[")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_float_has_64_bits(client: SyncClient) -> None:
    assert client.predict("real", x=0.1) == 0.1
    assert client.predict("real", x=1e300) == 1e300


def test_a_missing_field_is_its_default_or_an_error(client: SyncClient) -> None:
    assert client.predict("echo", text="a") == "aa"
    assert client.predict("echo", text="a", times=0) == ""
    assert client.predict("echo", text="", times=3) == ""
    with pytest.raises(InvalidRequest) as caught:
        client.predict("echo", times=3)
    assert caught.value.field == "text"


def test_optional_and_dict_are_what_they_say(client: SyncClient, foreign: Foreign) -> None:
    assert client.predict("options") == "None None"
    assert client.predict("options", limit=0, tags={"a": 1}) == "0 {'a': 1}"
    fields = foreign.pool.FindMessageTypeByName(f"{PACKAGE}.OptionsRequest").fields_by_name
    assert fields["limit"].type == fields["limit"].TYPE_INT64
    assert fields["limit"].has_presence
    entry = fields["tags"].message_type
    assert entry is not None
    assert entry.GetOptions().map_entry


# ---- connections --------------------------------------------------------------------------------


def test_a_connection_carries_more_than_100_streams(foreign: Foreign) -> None:
    streams = [
        foreign.stream("Endless", foreign.message("EndlessRequest", name="many"))
        for _ in range(150)
    ]
    assert [next(one).result for one in streams] == [0] * 150
    for one in streams:
        one.cancel()


def test_messages_have_a_limit_that_is_told(foreign: Foreign) -> None:
    code, _ = refusal(foreign, f"/{PACKAGE}.Size/Predict", b"\x0a\x80\x80\x80\x04" + bytes(8 << 20))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    kept = foreign.unary("Size", foreign.message("SizeRequest", data=bytes(3 << 20)))
    assert len(kept.result) == 3 << 20


def test_gzip_is_understood(stack: Serving) -> None:
    with Foreign(stack.target, compression=grpc.Compression.Gzip) as foreign:
        answer = foreign.unary("Echo", foreign.message("EchoRequest", text="a" * 10_000))
    assert answer.result == "a" * 20_000
