"""Middleware of a client that logs, counts and traces.

client = Client(target, middleware=[CallLogging(), CallMetrics(), CallTraces()])
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import structlog

from millstream.middleware import Call, Middleware
from shared.hooks import outcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

    from shared.tracing import Span, Tracing

log = structlog.get_logger(__name__)

_TRACEPARENT = "traceparent"


class CallLogging(Middleware):
    """A line in the log for each call: name, request, seconds, items, outcome."""

    def after(self, call: Call) -> None:
        """It ended well."""
        self._log(call, "ok")

    def on_error(self, call: Call, error: BaseException) -> None:
        """It did not."""
        self._log(call, outcome(error))

    def _log(self, call: Call, outcome: str) -> None:
        log.info(
            "client_call", name=call.name, request_id=call.request_id, outcome=outcome,
            items=call.items, seconds=round(time.monotonic() - call.started, 6),
        )  # fmt: skip


class CallMetrics(Middleware):
    """Calls by outcome, their time and their items: Prometheus.

    Args:
        registry: Where they are; prometheus-client's default one where it is not given.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            from prometheus_client import REGISTRY as registry
        self._calls, self._seconds, self._given = _metrics(registry)

    def after(self, call: Call) -> None:
        """It ended well."""
        self._count(call, "ok")

    def on_error(self, call: Call, error: BaseException) -> None:
        """It did not."""
        self._count(call, outcome(error))

    def _count(self, call: Call, outcome: str) -> None:
        self._calls.labels(call.name, outcome).inc()
        self._given.labels(call.name).inc(call.items)
        self._seconds.labels(call.name).observe(time.monotonic() - call.started)


@functools.cache
def _metrics(registry: CollectorRegistry) -> tuple[Counter, Histogram, Counter]:
    from prometheus_client import Counter, Histogram

    name = "millstream_client"
    return (
        Counter(f"{name}_calls", "Calls that ended", ["name", "outcome"], registry=registry),
        Histogram(f"{name}_seconds", "Time of a call", ["name"], registry=registry),
        Counter(f"{name}_items", "Items received", ["name"], registry=registry),
    )


class CallTraces(Middleware):
    """A span for each call, below the current one, and its traceparent sent with the call.

    Nothing without the extra `otel`; where the process exports no spans, the current span's
    traceparent is passed on.

    Args:
        tracing: Where spans go; to the process's own tracer provider where it is not given.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing if tracing is not None else _process_tracing()
        self._key = f"millstream.span.{id(self)}"

    def before(self, call: Call) -> None:
        """Begin the span."""
        if self._tracing is not None:
            parent = self._tracing.current() or call.metadata.get(_TRACEPARENT, "")
            span = self._tracing.begin(f"call {call.name}", parent, {"millstream.model": call.name})
            call.scope[self._key] = span
            if span.traceparent:
                call.metadata[_TRACEPARENT] = span.traceparent

    def after(self, call: Call) -> None:
        """End it."""
        self._end(call, "")

    def on_error(self, call: Call, error: BaseException) -> None:
        """End it as failed."""
        self._end(call, outcome(error))

    def _end(self, call: Call, error: str) -> None:
        span: Span | None = call.scope.pop(self._key, None)
        if span is not None:
            span.end(
                error, {"millstream.request_id": call.request_id, "millstream.items": call.items}
            )


def _process_tracing() -> Tracing | None:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    from shared.tracing import Tracing

    return Tracing(trace.get_tracer("millstream"))
