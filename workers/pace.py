"""Whether an engine still steps, as its own worker sees it: pure, time passed in.

A gateway that holds an engine for hung moves its requests away; this keeps the worker from pulling
more of them meanwhile. It asks no more than a step, so an engine that merely warms up loses
nothing.
"""

from __future__ import annotations

STUCK_AFTER = 1.0
STALL = 0.25
"""Seconds between two ticks that are no pause of an engine's or a gateway's: this process stood
still."""
TRY_AGAIN = 10.0
"""Seconds of nothing in flight after which a stuck engine gets work again: one whose jobs were all
taken away makes no step that would tell that it could."""


class Pace:
    """Watches a step counter.

    Attributes:
        stuck: Whether it stands still, with work in flight when it stopped.
    """

    def __init__(self) -> None:
        self.stuck = False
        self._steps = -1
        self._since = 0.0
        self._busy = 0.0
        self._looked = 0.0
        self._stood = False

    def observe(self, steps: int, in_flight: int, now: float) -> None:
        """Take a look at the engine; called every tick."""
        paused, self._looked = now - self._looked, now
        stood = paused > STALL
        if stood and not self._stood:  # Looks that always come late are no excuse.
            self._since = min(now, self._since + paused)
        self._stood = stood
        if in_flight:
            self._busy = now
        if steps != self._steps or (self.stuck and now - self._busy > TRY_AGAIN):
            self._steps, self._since, self.stuck = steps, now, False
        elif not in_flight and not self.stuck:
            self._since = now
        elif now - self._since > STUCK_AFTER:
            self.stuck = True
