"""What `make bench` measures: loads, repetitions, and the rows made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import LoadClient
from benchmarks.loads import Load
from benchmarks.measure import Sample, engine_us, measure, quantile, start_seconds
from benchmarks.systems import BareGrpclib, BlazeRpc, Millstream, System

SYSTEMS: tuple[type[System], ...] = (Millstream, BlazeRpc, BareGrpclib)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, and its short form for a smoke test.

    Attributes:
        key: In rows.
        load: The load.
        quick: The same in a moment.
    """

    key: str
    load: Load
    quick: Load


SCENARIOS = (
    Scenario("free", Load(64, 64, 1500), Load(64, 64, 40)),
    Scenario("alone", Load(1, 2000, 1), Load(1, 10, 1)),
    Scenario("burst", Load(64, 1280, 1, waves=True), Load(64, 64, 1, waves=True)),
    Scenario("request", Load(16, 1600, 1), Load(16, 32, 1)),
    Scenario("paced", Load(64, 64, 250, pace_ms=20), Load(64, 64, 10, pace_ms=20)),
    Scenario(
        "many",
        Load(500, 500, 200, connections=8, pace_ms=50),
        Load(500, 500, 4, connections=8, pace_ms=50),
    ),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        key: In the JSON.
        title: In the table.
        unit: us, ms or s.
        scenario: What it is measured in, or "start".
        value: Its value of one repetition.
        target: What issue 7 asks of Millstream, or None.
        ours: Whether only Millstream has it.
    """

    key: str
    title: str
    unit: str
    scenario: str
    value: Callable[[Sample], float]
    target: float | None = None
    ours: bool = False


def _cpu(role: str) -> Callable[[Sample], float]:
    return lambda sample: sample.cpu_us[role]


ROWS = (
    Row("free_front", "gateway CPU a token, 64 streams free-running", "us", "free",
        _cpu("front"), 5.0),
    Row("free_worker", "worker CPU a token, free-running, without its engine", "us", "free",
        _cpu("publishing"), 3.0, ours=True),
    Row("free_worker_engine", "worker CPU a token, free-running, with the sim engine", "us",
        "free", _cpu("worker"), ours=True),
    Row("free_broker", "broker CPU a token, free-running", "us", "free", _cpu("broker"), 1.5,
        ours=True),
    Row("paced_front", "gateway CPU a token, 64 streams at 50 tokens/s", "us", "paced",
        _cpu("front"), 12.0),
    Row("paced_worker", "worker CPU a token, 64 streams at 50 tokens/s", "us", "paced",
        _cpu("worker"), ours=True),
    Row("paced_broker", "broker CPU a token, 64 streams at 50 tokens/s", "us", "paced",
        _cpu("broker"), ours=True),
    Row("paced_jitter", "added inter-token gap, p99, 64 streams at 50 tokens/s", "ms", "paced",
        lambda sample: quantile(sample.late_ms, 0.99)),
    Row("many_front", "gateway CPU a token, 500 streams at 20 tokens/s", "us", "many",
        _cpu("front")),
    Row("many_jitter", "added inter-token gap, p99, 500 streams at 20 tokens/s", "ms", "many",
        lambda sample: quantile(sample.late_ms, 0.99), 5.0),
    Row("alone_p50", "time to first token alone, p50", "ms", "alone",
        lambda sample: quantile(sample.ttft_ms, 0.50), 1.0),
    Row("alone_p99", "time to first token alone, p99", "ms", "alone",
        lambda sample: quantile(sample.ttft_ms, 0.99), 2.0),
    Row("burst_p50", "time to first token, 64 at once, p50", "ms", "burst",
        lambda sample: quantile(sample.ttft_ms, 0.50), 9.0),
    Row("burst_p99", "time to first token, 64 at once, p99", "ms", "burst",
        lambda sample: quantile(sample.ttft_ms, 0.99)),
    Row("request_front", "gateway CPU a request of one token, 16 in flight", "us", "request",
        _cpu("front"), 250.0),
    Row("alone_front", "gateway CPU a request of one token, one at a time", "us", "alone",
        _cpu("front")),
    Row("start", "start of the whole stack to the first token", "s", "start",
        lambda sample: float("nan"), 2.0, ours=True),
)  # fmt: skip


@dataclass(slots=True)
class Figure:
    """One row's value for one system.

    Attributes:
        median: Of the repetitions.
        low: The least.
        high: The greatest.
        values: All, in order.
        per_nats: Median tokens per message the worker published, or None.
        per_grpc: Median tokens per gRPC message, or None.
    """

    median: float
    low: float
    high: float
    values: list[float]
    per_nats: float | None = None
    per_grpc: float | None = None

    @classmethod
    def of(cls, values: list[float], samples: list[Sample]) -> Figure:
        """Summarize repetitions."""
        nats = [sample.per_nats for sample in samples if sample.per_nats is not None]
        grpc = [sample.per_grpc for sample in samples]
        return cls(
            statistics.median(values), min(values), max(values), values,
            statistics.median(nats) if nats else None,
            statistics.median(grpc) if grpc else None,
        )  # fmt: skip


@dataclass(slots=True)
class Result:
    """All samples of a run, by scenario and system.

    Attributes:
        samples: The repetitions.
        starts: Seconds that the stack took.
    """

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)

    def figures(self) -> Iterator[tuple[Row, dict[str, Figure]]]:
        """Every row with its figure of each system that has one."""
        for row in ROWS:
            if row.scenario == "start":
                yield row, {"millstream": Figure.of(self.starts, [])}
                continue
            found = {}
            for system in SYSTEMS:
                samples = self.samples[row.scenario, system.name]
                if system is Millstream or not row.ours:
                    values = [row.value(sample) for sample in samples]
                    found[system.name] = Figure.of(values, samples)
            yield row, found

    def rows(self) -> list[dict[str, Any]]:
        """The rows as JSON takes them."""
        return [
            {
                "key": row.key,
                "title": row.title,
                "unit": row.unit,
                "target": row.target,
                "systems": {name: asdict(figure) for name, figure in found.items()},
            }
            for row, found in self.figures()
        ]


def run(scratch: Path, repetitions: int, quick: bool, say: Say) -> Result:
    """Measure everything: for each pace all systems side by side, taking turns."""
    result = Result()
    with LoadClient() as client:
        for step in sorted({scenario.load.pace_ms for scenario in SCENARIOS}):
            chosen = [one for one in SCENARIOS if one.load.pace_ms == step]
            with ExitStack() as stack:
                systems = [
                    stack.enter_context(system(scratch / f"{system.name}-{step:g}", step))
                    for system in SYSTEMS
                ]
                for scenario in chosen:
                    say(f"{scenario.key}: {repetitions} times {len(systems)} systems")
                    _repeat(result, client, systems, scenario, repetitions, quick)
    say("start of the stack")
    result.starts = [start_seconds() for _ in range(repetitions)]
    return result


def _repeat(
    result: Result,
    client: LoadClient,
    systems: list[System],
    scenario: Scenario,
    repetitions: int,
    quick: bool,
) -> None:
    for system in systems:
        if not quick:
            measure(client, system, scenario.quick)  # Warms it up.
    for _ in range(repetitions):
        for system in systems:
            sample = measure(client, system, scenario.quick if quick else scenario.load)
            if scenario.key == "free" and system.name == Millstream.name:
                sample.cpu_us["publishing"] = max(0.0, sample.cpu_us["worker"] - engine_us())
            result.samples.setdefault((scenario.key, system.name), []).append(sample)
