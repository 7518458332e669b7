"""A request's span at the gateway: how long it queued, what was delivered, when it failed over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.ports import Forward, Outlet, Summary
from shared import wire
from shared.errors import MillstreamError
from shared.subjects import CLASSES
from shared.tracing import Attributes, Span, Tracing


class Traces:
    """The spans of all open requests.

    Args:
        tracing: Where spans go; None is nowhere, and everything passes through untouched.
    """

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self._open: dict[str, TracedOutlet] = {}

    def begin(self, request: wire.Request, outlet: Outlet) -> tuple[wire.Request, Outlet]:
        """Begin a request's span; what the worker traces becomes a child of it."""
        if self._tracing is None:
            return request, outlet
        span = self._tracing.begin(
            "Generate",
            request.traceparent,
            {
                "millstream.model": request.model,
                "millstream.request_id": request.request_id,
                "millstream.tenant": request.tenant,
                "millstream.priority": CLASSES[request.urgency],
            },
        )
        traced = self._open[request.id] = TracedOutlet(outlet, span)
        return replace(request, traceparent=span.traceparent), traced

    def end(self, request_id: str) -> None:
        """The client is served or gone."""
        traced = self._open.pop(request_id, None)
        if traced is not None:
            traced.end("the client left")


class TracedOutlet:
    """Passes everything on and keeps the times of what matters.

    Args:
        outlet: Gets it.
        span: The request's.
    """

    __slots__ = ("_attempt", "_began", "_ended", "_forward", "_last", "_outlet", "_span")

    def __init__(self, outlet: Outlet, span: Span) -> None:
        self._outlet = outlet
        self._span = span
        self._began = self._last = time.monotonic()
        self._attempt = 0
        self._ended = False
        self._forward = outlet.forward

    @property
    def forward(self) -> Forward | None:
        """The outlet's, noted like `delta`; not kept, since it would hold what holds it."""
        return None if self._forward is None else self._on_message

    def _on_message(self, message: bytes) -> None:
        assert self._forward is not None
        self._last = time.monotonic()
        self._forward(message)

    def started(self, worker: str) -> None:
        """A worker took the request."""
        now = time.monotonic()
        self._span.child("queue", self._began, now, {"millstream.worker": worker})
        self._last = now
        self._outlet.started(worker)

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        *more: Any,
    ) -> None:
        """The next tokens."""
        now = time.monotonic()
        if attempt != self._attempt:
            self._span.child(
                "failover", self._last, now, {"millstream.attempt": attempt, "index": index}
            )
            self._attempt = attempt
        self._last = now
        self._outlet.delta(index, ids, text, choice, attempt, logprobs, *more)

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        """The next items of a function."""
        self._last = time.monotonic()
        self._outlet.items(index, items, attempt)

    def finished(self, summary: Summary) -> None:
        """The answer is complete."""
        self.end(
            "",
            {
                "millstream.attempts": summary.attempts,
                "millstream.prompt_tokens": summary.prompt_tokens,
                "millstream.completion_tokens": summary.completion_tokens,
            },
        )
        self._outlet.finished(summary)

    def failed(self, error: MillstreamError) -> None:
        """The request failed for good."""
        self.end(error.kind)
        self._outlet.failed(error)

    def end(self, error: str, attributes: Attributes | None = None) -> None:
        """End the span, once."""
        if not self._ended:
            self._ended = True
            self._span.end(error, attributes)
