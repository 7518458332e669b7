"""What a traced request notes of its tokens, on either way."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.ports import TextOnly
from gateway.traces import TracedOutlet
from shared.tracing import Span

pytestmark = pytest.mark.unit


class Out(TextOnly):
    """A client."""

    def __init__(self) -> None:
        self.got: list[object] = []

    def forward(self, message: bytes) -> None:
        self.got.append(message)

    def delta(self, *given: Any) -> None:
        self.got.append(given)


class Children:
    """A span that writes down its children."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float]] = []

    def child(self, name: str, start: float, end: float, _attributes: object) -> None:
        self.spans.append((name, start, end))


def test_a_failover_begins_at_the_last_token_that_was_forwarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1.0
    monkeypatch.setattr("gateway.traces.time.monotonic", lambda: now)
    out, span = Out(), Children()
    traced = TracedOutlet(cast(Any, out), cast(Span, span))
    traced.delta(0, (1,), "a", 0, 0, None)
    assert traced.forward is not None
    now = 2.0
    traced.forward(b"b")
    now = 3.0
    traced.delta(2, (3,), "c", 0, 1, None)
    assert span.spans == [("failover", 2.0, 3.0)]
    assert out.got == [(0, (1,), "a", 0, 0, None), b"b", (2, (3,), "c", 0, 1, None)]


def test_what_takes_no_messages_is_not_given_any() -> None:
    out = Out()
    out.forward = None  # type: ignore[assignment, method-assign]
    assert TracedOutlet(cast(Any, out), cast(Span, Children())).forward is None
