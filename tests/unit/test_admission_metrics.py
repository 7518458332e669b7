"""What the metrics of worker and gateway say, as a scrape reads it."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics as gateway_metrics
from gateway.grpc.limits import ServerCounters
from gateway.ports import Summary
from gateway.router import Router
from shared import wire
from shared.errors import Overloaded
from shared.metrics import start_metrics_server
from workers import metrics as worker_metrics
from workers.engines.base import Observation


def scrape(port: int) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@dataclass
class Measured:
    info: dict[str, str]
    steps: worker_metrics.StepTimes
    taken: worker_metrics.Snapshot

    def snapshot(self) -> worker_metrics.Snapshot:
        return self.taken


def test_a_workers_metrics() -> None:
    steps = worker_metrics.StepTimes()
    for look in range(6):
        steps.observe(10.0 + look * 0.03, Observation(steps=look * 2, running=3))
    steps.observe(90.0, Observation(steps=10, running=0))
    steps.observe(95.0, Observation(steps=11, running=1))
    snapshot = worker_metrics.Snapshot(
        Observation(11, 3, 1, 0.25), 4, 8, "latency", 99, {"cancelled": 2}, "ready"
    )
    info = {"worker": "w-1", "model": "tiny", "engine": "sim"}
    models = [Measured(info, steps, snapshot)]
    port = start_metrics_server(0, worker_metrics.WorkerMetrics(models), host="127.0.0.1")
    found = scrape(port)
    prefix = "millstream_worker"
    assert found[key(f"{prefix}_info", **info)] == 1
    tiny = {"model": "tiny"}
    assert found[key(f"{prefix}_limit", **tiny, reason="latency")] == 8
    assert found[key(f"{prefix}_running", **tiny)] == 4
    assert found[key(f"{prefix}_engine_waiting", **tiny)] == 1
    assert found[key(f"{prefix}_kv_used_ratio", **tiny)] == 0.25
    assert found[key(f"{prefix}_tokens_total", **tiny)] == 99
    assert found[key(f"{prefix}_events_total", **tiny, event="cancelled")] == 2
    assert found[key(f"{prefix}_step_seconds_bucket", **tiny, le="0.01")] == 0
    assert found[key(f"{prefix}_step_seconds_bucket", **tiny, le="0.02")] == 10
    assert found[key(f"{prefix}_step_seconds_count", **tiny)] == 10


class NoIo:
    def __getattr__(self, name: str) -> Any:
        return (lambda: 5.0) if name == "now" else (lambda *_args: None)


class NoOutlet:
    def __getattr__(self, name: str) -> Any:
        return lambda *_args: None


@pytest.fixture
def router() -> Router:
    return Router("gw", NoIo(), queue_seconds=60.0)


def test_a_gateways_metrics(router: Router) -> None:
    answers = gateway_metrics.Answers()
    answers.finished("tiny", Summary(("stop",), 5, 11, 2, 0.02, 0.2, 1.2, 1))
    answers.failed("tiny", Overloaded("full"))
    router.events["gap"] += 3
    router.open(
        wire.Request("01", 0, "gw", "r", "tiny", "p", None, None, wire.Sampling(), urgency=1),
        NoOutlet(),
        deadline=None,
    )
    router.on_announce(wire.Announce("w-1", 1, "w", "ready", "tiny"))
    router.on_heartbeat(wire.Heartbeat("w-1", 0, "tiny", "ready", 7, 3, 8, 1, 0.5))
    counters = ServerCounters()
    counters.connections += 2
    port = start_metrics_server(
        0, gateway_metrics.GatewayMetrics(router, counters, answers), host="127.0.0.1"
    )
    found = scrape(port)
    prefix = "millstream_gateway"
    assert found[key(f"{prefix}_ready")] == 1
    labels = {"model": "tiny", "class": "interactive", "state": "publishing"}
    assert found[key(f"{prefix}_sessions", **labels)] == 1
    assert found[key(f"{prefix}_events_total", event="gap")] == 3
    assert found[key(f"{prefix}_requests_total", model="tiny", outcome="finished")] == 1
    assert found[key(f"{prefix}_requests_total", model="tiny", outcome="Overloaded")] == 1
    assert found[key(f"{prefix}_tokens_total", model="tiny", kind="completion")] == 11
    assert found[key(f"{prefix}_queue_seconds_bucket", model="tiny", le="0.025")] == 1
    assert found[key(f"{prefix}_first_token_seconds_sum", model="tiny")] == 0.2
    assert found[key(f"{prefix}_token_gap_seconds_bucket", model="tiny", le="0.1")] == 1
    assert found[key(f"{prefix}_worker_running", model="tiny", worker="w")] == 3
    assert found[key(f"{prefix}_worker_kv_used", model="tiny", worker="w")] == 0.5
    assert found[key(f"{prefix}_grpc_connections_total")] == 2
