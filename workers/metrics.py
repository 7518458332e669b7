"""Prometheus metrics of a worker: what it holds in memory anyway, read when somebody asks.

Nothing is counted for the metrics' sake but the step times, once a tick. A scrape runs in a thread
of its own; it copies what could change under it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

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

    def family(self) -> HistogramMetricFamily:
        """As Prometheus wants it."""
        bounds = [*map(str, STEP_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(list(self._counts)), strict=True))
        return HistogramMetricFamily(
            "millstream_worker_step_seconds", "Time of an engine step", buckets, self._sum
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a worker stands.

    Attributes:
        seen: What its engine says of itself.
        running: Requests that hold a slot.
        limit: Requests it would run at once now.
        reason: What holds the limit there.
        tokens: Tokens published since the start.
        events: Counts by name; aborts by cause are among them.
        state: loading, ready, draining, failed.
    """

    seen: Observation
    running: int
    limit: int
    reason: str
    tokens: int
    events: Mapping[str, int]
    state: str


class WorkerMetrics(Collector):
    """Reads the state when asked.

    Args:
        info: What does not change: worker, model, engine, dtype.
        read: Says how the worker stands; called in another thread.
        steps: Step times.
    """

    def __init__(
        self, info: Mapping[str, str], read: Callable[[], Snapshot], steps: StepTimes
    ) -> None:
        self._info = dict(info)
        self._read = read
        self._steps = steps

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        now = self._read()
        prefix = "millstream_worker"
        yield InfoMetricFamily(prefix, "What this worker is", self._info)
        yield _labelled(f"{prefix}_state", "1 for the state it is in", "state", {now.state: 1})
        yield GaugeMetricFamily(f"{prefix}_running", "Requests in flight", now.running)
        yield _labelled(
            f"{prefix}_limit", "Requests it would run at once, and what holds it there", "reason",
            {now.reason: now.limit},
        )  # fmt: skip
        yield GaugeMetricFamily(
            f"{prefix}_engine_running", "Requests in the engine's batch", now.seen.running
        )
        yield GaugeMetricFamily(
            f"{prefix}_engine_waiting", "Requests in the engine's own queue", now.seen.waiting
        )
        yield GaugeMetricFamily(
            f"{prefix}_kv_used_ratio", "Share of the KV cache in use", now.seen.kv_used
        )
        yield CounterMetricFamily(f"{prefix}_steps", "Engine steps", now.seen.steps)
        yield CounterMetricFamily(f"{prefix}_tokens", "Tokens published", now.tokens)
        yield self._steps.family()
        events = CounterMetricFamily(f"{prefix}_events", "What happened", labels=["event"])
        for name, count in sorted(dict(now.events).items()):
            events.add_metric([name], count)
        yield events


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
