"""Middleware that logs, counts and traces: `App(middleware=[Logging(), Metrics(), Traces()])`."""

from __future__ import annotations

import functools
import socket
import time
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from shared.hooks import outcome
from shared.tracing import Span, Tracing, configure
from workers.app.context import Context
from workers.app.middleware import Middleware

log = structlog.get_logger(__name__)

_ITEMS = "millstream.items"
_SPAN = "millstream.span"


class _Counting(Middleware):
    """Counts items in the call's scope."""

    def __init__(self) -> None:
        self._key = f"{_ITEMS}.{id(self)}"

    def on_item(self, context: Context, item: Any) -> Any:
        """Count."""
        context.scope[self._key] = context.scope.get(self._key, 0) + 1
        return item

    def items(self, context: Context) -> int:
        """So many the call gave."""
        return int(context.scope.get(self._key, 0))


class Logging(_Counting):
    """A line in the log for each call: model, request, seconds, items, outcome."""

    def after(self, context: Context) -> None:
        """It ended well."""
        self._log(context, "ok")

    def on_error(self, context: Context, error: BaseException) -> None:
        """It did not."""
        self._log(context, outcome(error))

    def _log(self, context: Context, outcome: str) -> None:
        log.info(
            "call", model=context.model, request_id=context.request_id, outcome=outcome,
            items=self.items(context), seconds=round(time.monotonic() - context.started, 6),
        )  # fmt: skip


class Metrics(_Counting):
    """Calls by outcome, their time, their items, those at work: Prometheus.

    Args:
        registry: Where they are; the worker's /metrics serves the default one.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        super().__init__()
        self._calls, self._seconds, self._given, self._at_work = _metrics(registry)

    def before(self, context: Context, inputs: dict[str, Any]) -> None:
        """It begins."""
        self._at_work.labels(context.model).inc()

    def after(self, context: Context) -> None:
        """It ended well."""
        self._count(context, "ok")

    def on_error(self, context: Context, error: BaseException) -> None:
        """It did not."""
        self._count(context, outcome(error))

    def _count(self, context: Context, outcome: str) -> None:
        self._at_work.labels(context.model).dec()
        self._calls.labels(context.model, outcome).inc()
        self._given.labels(context.model).inc(self.items(context))
        self._seconds.labels(context.model).observe(time.monotonic() - context.started)


@functools.cache
def _metrics(registry: CollectorRegistry) -> tuple[Counter, Histogram, Counter, Gauge]:
    name, model = "millstream_function", ["model"]
    return (
        Counter(f"{name}_calls", "Calls that ended", [*model, "outcome"], registry=registry),
        Histogram(f"{name}_seconds", "Time of a call", model, registry=registry),
        Counter(f"{name}_items", "Items given", model, registry=registry),
        Gauge(f"{name}_at_work", "Calls at work", model, registry=registry),
    )


class Traces(_Counting):
    """A span for each call, below the request's; nothing where no exporter is configured.

    Args:
        tracing: Where spans go; as the environment says where it is not given.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        super().__init__()
        self._tracing = tracing if tracing is not None else _configured()

    def before(self, context: Context, inputs: dict[str, Any]) -> None:
        """Begin the span."""
        if self._tracing is not None:
            context.scope[_SPAN] = self._tracing.begin(
                f"function {context.model}",
                context.traceparent,
                {"millstream.model": context.model, "millstream.request_id": context.request_id},
            )

    def after(self, context: Context) -> None:
        """End it."""
        self._end(context, "")

    def on_error(self, context: Context, error: BaseException) -> None:
        """End it as failed."""
        self._end(context, outcome(error))

    def _end(self, context: Context, error: str) -> None:
        span: Span | None = context.scope.pop(_SPAN, None)
        if span is not None:
            span.end(error, {_ITEMS: self.items(context)})


@functools.cache
def _configured() -> Tracing | None:
    return configure("function", socket.gethostname())
