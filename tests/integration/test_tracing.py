"""One trace from the client to the engine, as a real OTLP collector receives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from millstream import Client
from millstream.nats_server import NatsServer
from tests.eventually import eventually
from tests.integration.processes import ROOT, Parts

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
METADATA = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans over OTLP's gRPC."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        register = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        register(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(
        self, request: pb.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans
        return pb.ExportTraceServiceResponse()

    def spans(self, name: str) -> list[Span]:
        """Spans of the client's trace by name, in the order of their beginnings."""
        with self._lock:
            found = [s for s in self._spans if s.name == name and s.trace_id.hex() == TRACE]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def clear(self) -> None:
        with self._lock:
            self._spans.clear()

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def parts(tmp_path: Path, collector: Collector) -> Iterator[Parts]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "MILLSTREAM_WORKER_ENGINE_ARGS": "step_ms=5,prefill_ms=200",
    }
    with NatsServer(tmp_path / "nats") as nats:
        environment["MILLSTREAM_NATS"] = nats.url
        with Parts(tmp_path, environment) as parts:
            yield parts


async def complete(target: str, tokens: int) -> None:
    async with Client(target, metadata=METADATA) as client:
        await client.complete("x", model="sim", max_tokens=tokens)


def test_a_trace_shows_queue_prefill_and_decode(parts: Parts, collector: Collector) -> None:
    target = parts.gateway()
    parts.worker("one")
    asyncio.run(complete(target, 20))
    (root,) = eventually(lambda: collector.spans("Generate"), "the gateway's span")
    (engine,) = eventually(lambda: collector.spans("engine"), "the worker's span")
    (queue,), (prefill,), (decode,) = map(collector.spans, ("queue", "prefill", "decode"))
    assert root.parent_span_id.hex() == PARENT
    assert queue.parent_span_id == engine.parent_span_id == root.span_id
    assert prefill.parent_span_id == decode.parent_span_id == engine.span_id
    # Half of what the engine takes: a busy machine begins a span a moment after its work.
    assert seconds(prefill) >= 0.2 / 2
    assert seconds(decode) >= 0.005 * 19 / 2
    assert root.start_time_unix_nano <= queue.start_time_unix_nano
    assert decode.end_time_unix_nano <= root.end_time_unix_nano + 50_000_000
    assert attributes(root)["millstream.completion_tokens"] == 20
    assert attributes(decode)["millstream.tokens"] == 20
    assert attributes(engine)["millstream.steps"] >= 18
    assert not any(text == "x" for span in (root, engine) for text in attributes(span).values())


def test_a_failover_is_a_span_and_the_second_worker_joins_the_trace(
    parts: Parts, collector: Collector
) -> None:
    target = parts.gateway()
    for name in ("one", "two"):
        parts.worker(name)
    asyncio.run(moved(target, parts))
    (root,) = eventually(lambda: collector.spans("Generate"), "the gateway's span")
    (engine,) = eventually(lambda: collector.spans("engine"), "the second worker's span")
    (failover,) = collector.spans("failover")
    assert failover.parent_span_id == engine.parent_span_id == root.span_id
    assert attributes(failover)["millstream.attempt"] == 1
    assert attributes(engine)["millstream.resumed_at"] == attributes(failover)["index"]
    assert attributes(root)["millstream.attempts"] == 2


async def moved(target: str, parts: Parts) -> None:
    async with Client(target, metadata=METADATA) as client:
        answer = client.generate("x", model="sim", max_tokens=200)
        for _ in range(5):
            await anext(answer)
        assert answer.started is not None
        os.kill(parts.pid(answer.started.worker.rsplit("-", 1)[0]), signal.SIGKILL)
        async for _ in answer:
            pass


def test_a_request_that_fails_or_is_left_ends_its_spans_as_errors(
    parts: Parts, collector: Collector
) -> None:
    target = parts.gateway()
    parts.worker("one")

    async def leave() -> None:
        async with (
            Client(target, metadata=METADATA) as client,
            client.generate("x", model="sim", max_tokens=10_000) as answer,
        ):
            await anext(answer)

    asyncio.run(leave())
    (root,) = eventually(lambda: collector.spans("Generate"), "the gateway's span")
    (engine,) = eventually(lambda: collector.spans("engine"), "the worker's span")
    assert root.status.code == engine.status.code == Status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_changes_nothing(tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with NatsServer(tmp_path / "nats") as nats, Parts(tmp_path, environment) as parts:
        target = parts.gateway("--nats", nats.url)
        parts.worker("one", "--nats", nats.url)
        asyncio.run(complete(target, 20))


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = (
        "import gateway.app, workers.host, shared.tracing as t, sys\n"
        "assert t.configure('gateway', 'x') is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    assert told.stdout == "[]\n"


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def attributes(span: Span) -> dict[str, Any]:
    return {
        one.key: one.value.int_value if one.value.HasField("int_value") else one.value.string_value
        for one in span.attributes
    }
