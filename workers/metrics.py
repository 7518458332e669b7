"""Prometheus metrics of a worker: what it holds in memory anyway, read when somebody asks.

Nothing is counted for the metrics' sake but the step times, once a tick. A scrape runs in a thread
of its own; it copies what could change under it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from workers.engines.base import Observation

STEP_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class StepTimes:
    """A histogram of step times."""

    def __init__(self) -> None:
        self._counts = [0] * (len(STEP_BOUNDS) + 1)
        self._sum = 0.0
        self._last: tuple[float, int] | None = None

    def observe(self, now: float, seen: Observation) -> None:
        """Take a look at the engine; several steps since the last look count with their mean."""
        if not seen.running:
            self._last = None  # Idle time is no step.
            return
        last, self._last = self._last, (now, seen.steps)
        if last is None:
            return
        steps = seen.steps - last[1]
        if steps == 0:
            self._last = last
        elif steps > 0:
            seconds = (now - last[0]) / steps
            self._counts[bisect_left(STEP_BOUNDS, seconds)] += steps
            self._sum += seconds * steps

    def add_to(self, family: HistogramMetricFamily, model: str) -> None:
        """Add it to a family, as Prometheus wants it."""
        bounds = [*map(str, STEP_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(list(self._counts)), strict=True))
        family.add_metric([model], buckets, self._sum)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a worker stands.

    Attributes:
        seen: What its engine says of itself.
        running: Requests that hold a slot.
        limit: Requests it would run at once now.
        reason: What holds the limit there.
        tokens: Tokens published since the start.
        events: Counts by name: aborts by cause are among them, and what its connection counted,
            which the models of a process share.
        state: loading, ready, draining, failed.
    """

    seen: Observation
    running: int
    limit: int
    reason: str
    tokens: int
    events: Mapping[str, int]
    state: str


class Measured(Protocol):
    """A model on a worker.

    Attributes:
        info: What does not change: worker, model, engine, dtype.
        steps: Step times.
    """

    info: dict[str, str]
    steps: StepTimes

    def snapshot(self) -> Snapshot:
        """How it stands; called in another thread."""


class WorkerMetrics(Collector):
    """Reads the state when asked; every series has the model's name as a label.

    Args:
        models: All models of the process.
    """

    def __init__(self, models: Sequence[Measured]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        prefix = "millstream_worker"
        families = _families(prefix)
        for model in self._models:
            _fill(families, prefix, model.info, model.snapshot())
            model.steps.add_to(families[f"{prefix}_step_seconds"], model.info["model"])
        yield from families.values()


def _families(prefix: str) -> dict[str, Any]:
    labels = ["model"]
    families = (
        InfoMetricFamily(prefix, "What this worker is"),
        GaugeMetricFamily(
            f"{prefix}_state", "1 for the state it is in", labels=[*labels, "state"]
        ),
        GaugeMetricFamily(f"{prefix}_running", "Requests in flight", labels=labels),
        GaugeMetricFamily(
            f"{prefix}_limit", "Requests it would run at once, and what holds it there",
            labels=[*labels, "reason"],
        ),
        GaugeMetricFamily(
            f"{prefix}_engine_running", "Requests in the engine's batch", labels=labels
        ),
        GaugeMetricFamily(
            f"{prefix}_engine_waiting", "Requests in the engine's own queue", labels=labels
        ),
        GaugeMetricFamily(
            f"{prefix}_kv_used_ratio", "Share of the KV cache in use", labels=labels
        ),
        CounterMetricFamily(f"{prefix}_steps", "Engine steps", labels=labels),
        CounterMetricFamily(f"{prefix}_tokens", "Tokens published", labels=labels),
        HistogramMetricFamily(
            f"{prefix}_step_seconds", "Time of an engine step", labels=labels
        ),
        CounterMetricFamily(f"{prefix}_events", "What happened", labels=[*labels, "event"]),
    )  # fmt: skip
    return {family.name: family for family in families}


def _fill(families: Mapping[str, Any], prefix: str, info: Mapping[str, str], now: Snapshot) -> None:
    model = info["model"]
    families[prefix].add_metric([], dict(info))
    families[f"{prefix}_state"].add_metric([model, now.state], 1)
    families[f"{prefix}_limit"].add_metric([model, now.reason], now.limit)
    for name, value in (
        ("running", now.running),
        ("engine_running", now.seen.running),
        ("engine_waiting", now.seen.waiting),
        ("kv_used_ratio", now.seen.kv_used),
        ("steps", now.seen.steps),
        ("tokens", now.tokens),
    ):
        families[f"{prefix}_{name}"].add_metric([model], value)
    for name, count in sorted(dict(now.events).items()):
        families[f"{prefix}_events"].add_metric([model, name], count)
