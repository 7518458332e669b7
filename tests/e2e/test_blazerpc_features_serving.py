"""The features of BlazeRPC 2.2.1 around calls: health, reflection, commands, middleware, HTTP."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from gateway import health
from millstream import App, Client, SyncClient
from shared.errors import Overloaded
from tests.e2e.apps.serving import PACKAGE, Foreign, Serving, held, serving
from tests.e2e.running import RunningStack, run_millstream
from tests.eventually import eventually
from tests.integration.test_tracing import METADATA, Collector

APP = "tests.e2e.apps.blazerpc:app"
BATCHED = "tests.e2e.apps.batched:app"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Serving]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    folder = tmp_path_factory.mktemp("features")
    with serving(folder, "--max-queue=64", "--http-port=0", **environment) as stack:
        stack.start("blaze", APP)
        yield stack


@pytest.fixture
def client(stack: Serving) -> Iterator[SyncClient]:
    with stack.client() as client:
        yield client


@pytest.fixture
def foreign(stack: Serving) -> Iterator[Foreign]:
    with Foreign(stack.target) as foreign:
        yield foreign


def test_health_serves_each_function_by_name(foreign: Foreign) -> None:
    check = foreign.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health.CheckRequest.SerializeToString,
        health.CheckResponse.FromString,
    )
    for name in ("", f"{PACKAGE}.Echo", "millstream.models.Echo", "millstream.models.v2.Greet"):
        assert check(health.CheckRequest(service=name), timeout=10).status == health.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_functions(foreign: Foreign, version: str) -> None:
    call = foreign.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = call(iter([asked]), timeout=10)
    listed = {one.name for one in answer.list_services_response.service}
    assert {f"{PACKAGE}.Echo", f"{PACKAGE}.Count", "millstream.models.v2.Greet"} <= listed


def test_the_proto_of_a_function_is_exported(stack: Serving, tmp_path: Path) -> None:
    done = run_millstream("proto", "kinds", "--out", str(tmp_path), "--target", stack.target)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "millstream/models/v1/kinds.proto").read_text()
    assert "rpc Predict(KindsRequest) returns (KindsResponse);" in text


def test_one_command_serves_an_app_with_several_workers(tmp_path: Path) -> None:
    small = "tests.e2e.apps.small:app"
    with (
        RunningStack(tmp_path / "data", small, "--workers", "2") as stack,
        SyncClient(stack.target) as client,
    ):
        eventually(lambda: client.model("process@1").workers == 2, "both serve")
        assert client.model("process@1").engine == "app"
        assert isinstance(client.predict("process"), int)


def test_middleware_runs_around_requests_items_and_responses(client: SyncClient) -> None:
    before = client.predict("seen")
    assert len(list(client.stream("count", to=5))) == 5
    after = client.predict("seen")
    assert after["requests"] == before["requests"] + 2
    assert after["responses"] == before.get("responses", 0) + 2
    assert after["items"] == before.get("items", 0) + 6


def test_logging_and_metrics_are_middleware(stack: Serving, client: SyncClient) -> None:
    client.function("echo", request_id="logged-1").predict(text="a secret")
    eventually(lambda: "logged-1" in stack.parts.log("blaze"), "it is logged")
    assert "a secret" not in stack.parts.log("blaze")
    counted = 'millstream_function_calls_total{model="echo@1",outcome="ok"}'
    eventually(lambda: counted in stack.metrics("blaze"), "it is counted")


def test_traces_are_middleware(client: SyncClient, collector: Collector) -> None:
    client.function("echo", metadata=METADATA).predict(text="a")
    (span,) = eventually(lambda: collector.spans("function echo@1"), "the span came")
    assert span.parent_span_id


def test_json_over_http_predicts_and_streams(stack: Serving) -> None:
    def post(name: str, **inputs: Any) -> str:
        request = urllib.request.Request(
            f"{stack.http}/v1/models/{name}/predict",
            json.dumps({"inputs": inputs}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    assert json.loads(post("echo", text="ab"))["result"] == "abab"
    lines = [line for line in post("count", to=3).splitlines() if line.startswith("data:")]
    assert [json.loads(line[5:])["result"] for line in lines[:3]] == ["0", "1", "2"]
    with urllib.request.urlopen(f"{stack.http}/health", timeout=10) as answer:
        assert answer.status == 200


async def test_the_queue_is_bounded(stack: Serving, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Client(stack.target) as client:
        first = await held(client, gate)
        calls = [asyncio.ensure_future(client.predict("one-by-one", name="q")) for _ in range(200)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # By a refusal.
        gate.touch()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert await first == "first"
    refused = [one for one in done if isinstance(one, Overloaded)]
    assert refused and all(one.retry_after for one in refused)
    assert {one for one in done if isinstance(one, str)} == {"q"}
    assert len(refused) + done.count("q") == 200


def test_a_call_says_which_version(client: SyncClient) -> None:
    assert client.predict("greet@1", who="you") == "hello you"
    assert client.predict("greet@2", who="you") == "HELLO you!"
    assert client.predict("greet", who="you") == "HELLO you!"


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [("2fast", "1", "the name is '2fast'"), ("a b", "1", "the name"), ("ok", "v 1", "the version")],
)
def test_names_and_versions_are_checked_where_they_are_given(
    name: str, version: str, told: str
) -> None:
    with pytest.raises(TypeError, match=told):

        @App().model(name, version)
        def function(x: int) -> int:
            return x
