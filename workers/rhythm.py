"""When a worker does what time brings: with a step that wakes it anyway, if one is near. Pure.

Beats, digests and whatever else a tick does may come early and must not come late. Between two
steps of an engine each would be a wake-up of its own, of this process, the broker and the gateways;
said in the turn of a step's tokens it travels along.
"""

from __future__ import annotations

FLOW = 0.06
"""Seconds between two steps up to which the next is expected after as long again."""
SLACK = 1.25
"""Of the time since the last step, by which the next may come later than expected."""
TIMER = 0.001
"""Seconds by which a timer of the loop may fire early: it knows milliseconds."""


class Rhythm:
    """The ticks of one process.

    Attributes:
        ahead: Seconds from now within which the coming tick takes what is due for due now.
    """

    def __init__(self) -> None:
        self.ahead = TIMER
        self._due = 0.0
        self._stepped = 0.0

    def step(self, now: float) -> bool:
        """An engine made a step; returns whether to tick now, since the next may be too late."""
        between, self._stepped = now - self._stepped, now
        if between > FLOW or now + SLACK * between < self._due:
            return False
        self.ahead = max(TIMER, SLACK * between)
        return True

    def ticked(self, now: float, pause: float) -> None:
        """There was a tick; so many seconds later the next is due, if none comes before."""
        self._due = now + pause
        self.ahead = TIMER
