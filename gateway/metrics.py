"""Prometheus metrics of a gateway: what it holds in memory anyway, read when somebody asks.

Histograms are fed once a request, from the summary that its client gets too, so a token costs
nothing. A scrape runs in a thread of its own; it copies what could change under it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.grpc.limits import ServerCounters
from gateway.ports import Outlet, Summary
from gateway.router import Router
from shared.errors import MillstreamError
from shared.subjects import CLASSES

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
PREFIX = "millstream_gateway"


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(list(self.counts))), strict=True))


class Answers:
    """What became of requests, by model."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.histograms: dict[tuple[str, str], _Histogram] = {}

    def finished(self, model: str, summary: Summary) -> None:
        """A request was answered."""
        self.outcomes[model, "finished"] += 1
        self.tokens[model, "prompt"] += summary.prompt_tokens
        self.tokens[model, "cached"] += summary.cached_tokens
        self.tokens[model, "completion"] += summary.completion_tokens
        self._observe(model, "queue", SECONDS, summary.queue)
        self._observe(model, "first_token", SECONDS, summary.first_token)
        self._observe(model, "total", SECONDS, summary.total)
        if summary.completion_tokens > 1:
            gap = (summary.total - summary.first_token) / (summary.completion_tokens - 1)
            self._observe(model, "token_gap", GAPS, gap)

    def failed(self, model: str, error: MillstreamError) -> None:
        """A request failed."""
        self.outcomes[model, error.kind] += 1

    def left(self, model: str) -> None:
        """Its client left before the end."""
        self.outcomes[model, "left"] += 1

    def _observe(self, model: str, name: str, bounds: tuple[float, ...], value: float) -> None:
        histogram = self.histograms.get((name, model))
        if histogram is None:
            histogram = self.histograms[name, model] = _Histogram(bounds)
        histogram.observe(value)


class Counted:
    """An outlet in front of another that counts how answers end; deltas go by untouched."""

    __slots__ = ("_answers", "_model", "_outlet", "delta", "forward", "items", "started")

    def __init__(self, outlet: Outlet, model: str, answers: Answers) -> None:
        self._outlet = outlet
        self._model = model
        self._answers = answers
        self.started = outlet.started
        self.delta = outlet.delta
        self.forward = outlet.forward
        self.items = outlet.items

    def finished(self, summary: Summary) -> None:
        """The answer is complete."""
        self._answers.finished(self._model, summary)
        self._outlet.finished(summary)

    def failed(self, error: MillstreamError) -> None:
        """The request failed."""
        self._answers.failed(self._model, error)
        self._outlet.failed(error)


class GatewayMetrics(Collector):
    """Reads the state when asked.

    Args:
        router: Sessions, events and the fleet.
        counters: Of the gRPC server.
        answers: What became of requests.
        ready: Whether NATS is there.
    """

    def __init__(
        self,
        router: Router,
        counters: ServerCounters,
        answers: Answers,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._router = router
        self._counters = counters
        self._answers = answers
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        yield GaugeMetricFamily(f"{PREFIX}_ready", "Whether NATS is there", int(self._ready()))
        yield self._sessions()
        events = {(name,): count for name, count in dict(self._router.events).items()}
        yield self._counted("events", "What happened to requests and workers", ["event"], events)
        yield self._counted("requests", "Requests by outcome: finished, left, or the error",
                            ["model", "outcome"], dict(self._answers.outcomes))  # fmt: skip
        yield self._counted("tokens", "Tokens of answered requests",
                            ["model", "kind"], dict(self._answers.tokens))  # fmt: skip
        yield from self._histograms()
        yield from self._workers()
        for field in fields(self._counters):
            value = getattr(self._counters, field.name)
            yield CounterMetricFamily(f"{PREFIX}_grpc_{field.name}", "See ServerCounters", value)

    def _sessions(self) -> Metric:
        open_now = Counter(
            (session.request.model, CLASSES[session.request.urgency], session.state.name.lower())
            for session in list(self._router.sessions.values())
        )
        family = GaugeMetricFamily(
            f"{PREFIX}_sessions", "Open requests", labels=["model", "class", "state"]
        )
        for labels, count in sorted(open_now.items()):
            family.add_metric(labels, count)
        return family

    def _counted(
        self, name: str, text: str, labels: list[str], values: Mapping[Any, int]
    ) -> Metric:
        family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
        for key, count in sorted(values.items()):
            family.add_metric(key, count)
        return family

    def _histograms(self) -> Iterator[Metric]:
        texts = {
            "queue": "From acceptance until a worker took the request",
            "first_token": "From acceptance to the first token",
            "total": "From acceptance to the end",
            "token_gap": "Mean time between two tokens of an answer",
        }
        found = sorted(dict(self._answers.histograms).items())
        for name, text in texts.items():
            family = HistogramMetricFamily(f"{PREFIX}_{name}_seconds", text, labels=["model"])
            for (kind, model), histogram in found:
                if kind == name:
                    family.add_metric([model], histogram.buckets(), histogram.sum)
            yield family

    def _workers(self) -> Iterator[Metric]:
        labels = ["model", "worker"]
        gauges = {
            name: GaugeMetricFamily(f"{PREFIX}_worker_{name}", text, labels=labels)
            for name, text in (
                ("ready", "Whether it takes work"),
                ("running", "Requests in flight"),
                ("limit", "Requests it would run at once"),
                ("waiting", "Requests in its engine's own queue"),
                ("kv_used", "Share of its KV cache in use"),
            )
        }
        for worker in list(self._router.fleet.workers.values()):
            key = [worker.model, worker.name]
            gauges["ready"].add_metric(key, int(worker.ready))
            beat = worker.beat
            if beat is not None:
                for name in ("running", "limit", "waiting", "kv_used"):
                    gauges[name].add_metric(key, getattr(beat, name))
        yield from gauges.values()
