"""Traces by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set; else nothing, not an import.

Spans are made from times that the code has anyway, a few for each request and none for a token. The
standard variables hold: OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_SCHEDULE_DELAY.
Needs the extra `otel`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from opentelemetry import trace

log = structlog.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORT_SECONDS = 5
_PARENT = "traceparent"

Attributes = Mapping[str, str | int | float | bool]


class Span:
    """A span under way.

    Args:
        tracer: Makes its children.
        span: OpenTelemetry's.
    """

    __slots__ = ("_span", "_tracer", "traceparent")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.traceparent = _traceparent(_within(span))
        """What others begin their spans with, to be its children."""

    def child(
        self, name: str, start: float, end: float, attributes: Attributes | None = None
    ) -> None:
        """Note something that is over, by monotonic times."""
        span = self._tracer.start_span(
            name, _within(self._span), attributes=attributes, start_time=_nanoseconds(start)
        )
        span.end(_nanoseconds(end))

    def end(self, error: str = "", attributes: Attributes | None = None) -> None:
        """End it, as failed where there is an error."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attributes(attributes or {})
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class Tracing:
    """Begins spans.

    Args:
        tracer: OpenTelemetry's.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(self, name: str, parent: str, attributes: Attributes) -> Span:
        """Begin a span below a traceparent; where that is "" or makes no sense, a new trace."""
        from opentelemetry.trace.propagation import tracecontext

        context = tracecontext.TraceContextTextMapPropagator().extract({_PARENT: parent})
        return Span(self._tracer, self._tracer.start_span(name, context, attributes=attributes))

    @staticmethod
    def current() -> str:
        """The traceparent of the span that this process is in, or ""."""
        return _traceparent(None)


def configure(service: str, name: str) -> Tracing | None:
    """Begin to export, if the environment says where to.

    Args:
        service: gateway or worker.
        name: Which one.
    """
    if not any(os.environ.get(variable) for variable in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.error("no_traces", reason=f"{error}; pip install 'millstream[otel]'")
        return None
    resource = Resource.create(
        {"service.name": f"millstream-{service}", "service.instance.id": name}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_SECONDS)))
    return Tracing(provider.get_tracer("millstream"))


def _traceparent(context: Any) -> str:
    """Of a context's span, the current one's where it is None."""
    from opentelemetry.trace.propagation import tracecontext

    carrier: dict[str, str] = {}
    tracecontext.TraceContextTextMapPropagator().inject(carrier, context)
    return carrier.get(_PARENT, "")


def _within(span: trace.Span) -> Any:
    from opentelemetry import trace

    return trace.set_span_in_context(span)


def _nanoseconds(monotonic: float) -> int:
    """A monotonic time as nanoseconds of the epoch, as close as the two clocks are read."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)
