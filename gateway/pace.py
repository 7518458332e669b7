"""Releases a stream no faster than asked for, token by token, without holding the engine back.

What the engine is ahead of its reader waits here, bounded by the answer's length. A stream that is
slower than its pace goes through untouched, and one without a pace is never wrapped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.pieces import Piece
from gateway.ports import Outlet, Summary, TextOnly
from shared.errors import MillstreamError


class Timer(Protocol):
    """A call that was put off."""

    def cancel(self) -> None:
        """It shall not happen."""


class Clock(Protocol):
    """Time, as asyncio's event loop tells it."""

    def time(self) -> float:
        """Seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back then."""


class Paced(TextOnly):
    """An outlet in front of another.

    Args:
        outlet: Gets the stream.
        pace: Tokens per second, over all choices.
        clock: The event loop.
    """

    __slots__ = ("_clock", "_due", "_gap", "_outlet", "_summary", "_timer", "_waiting", "started")

    def __init__(self, outlet: Outlet, pace: float, clock: Clock) -> None:
        self._outlet = outlet
        self._gap = 1.0 / pace
        self._clock = clock
        self._waiting: deque[Piece] = deque()
        self._due = clock.time()
        self._timer: Timer | None = None
        self._summary: Summary | None = None
        self.started = outlet.started

    @property
    def waiting(self) -> int:
        """Tokens that are here and not released."""
        return sum(len(piece.ids) for piece in self._waiting)

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        """Take the next tokens of one choice."""
        if not self._waiting:
            self._due = max(self._due, self._clock.time())
        self._waiting.extend(Piece(index, ids, text, choice, attempt, logprobs, ends).split())
        if self._timer is None:
            self._release()

    def finished(self, summary: Summary) -> None:
        """The answer is complete: say so after its last token."""
        self._summary = summary
        if self._timer is None:
            self._release()

    def failed(self, error: MillstreamError) -> None:
        """The request failed: give what is here, and the error, at once."""
        while self._waiting:
            self._give(self._waiting.popleft())
        self.close()
        self._outlet.failed(error)

    def close(self) -> None:
        """The client is gone: release nothing more."""
        self._waiting.clear()
        self._summary = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        """Give what is due, and come back for the rest."""
        self._timer = None
        now = self._clock.time()
        while self._waiting and self._due <= now:
            piece = self._waiting.popleft()
            self._due += self._gap * len(piece.ids)
            self._give(piece)
        if self._waiting:
            self._timer = self._clock.call_at(self._due, self._release)
        elif self._summary is not None:
            summary, self._summary = self._summary, None
            self._outlet.finished(summary)

    def _give(self, piece: Piece) -> None:
        self._outlet.delta(*piece)
