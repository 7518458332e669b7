"""How many requests a worker runs at once: as many as keep the time between two tokens in bounds.

A step of an engine takes about `base + slope * in_flight`. Both are fitted to the last steps, and
the limit is where that line meets the target. Where all steps were of one size nothing is known of
the slope, so its last share of a step's time is kept, at first all of it, which errs to the small
side; the limit never grows beyond twice what was tried, so that no step is far from what was seen.
A step time that is off the line twice in a row means that the engine has changed, and what was
seen before is forgotten.

Two signals of the engine's own cap it: the share of the KV cache that requests take, and requests
that wait inside the engine, which would be better off in the queue, where any worker takes them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from workers.engines.base import Observation

WINDOW = 12
FORGET_BEYOND = 0.12
"""Off the line by more than this share, twice in a row, the engine has changed."""

SPREAD = 0.04
"""Sizes of steps that differ by less than this share say nothing of the slope."""

DEAD_BAND = 0.025
"""A limit that would change by less than this share stays."""

KV_TARGET = 0.97
KV_TELLING = 0.25
"""A KV cache fuller than this says how many requests it holds."""

WAITS = 3
"""So many looks in a row at requests waiting in the engine are no accident."""

SLOWEST = 1.5
"""Where the target is out of reach, a step may take this many times what the smallest takes."""


@dataclass(frozen=True, slots=True)
class _Step:
    size: int
    seconds: float


class Admission:
    """The limit of one worker.

    Args:
        most: Never more; what the engine takes.
        target: Seconds between two tokens that are to be held, or None: the limit is `most`,
            less what the engine's own signals say.
        start: To begin with.

    Attributes:
        limit: Requests to run at once, at least 1.
        reason: What holds it there: `most`, `latency`, `kv` or `waiting`.
    """

    def __init__(self, most: int, target: float | None, *, start: int = 8) -> None:
        self._most = most
        self._target = target
        self.limit = most if target is None else min(most, start)
        self.reason = "most" if target is None or most <= start else "latency"
        self._seen: deque[_Step] = deque(maxlen=WINDOW)
        self._share = 1.0  # of a step's time, what grows with its size
        self._base = 0.0
        self._slope = 0.0
        self._off = 0
        self._waited = 0
        self._cap: int | None = None
        self._last: tuple[float, int] | None = None

    def observe(self, now: float, seen: Observation, running: int) -> None:
        """Take a look at the engine; called every few milliseconds.

        Args:
            now: Monotonic seconds.
            seen: What the engine says of itself.
            running: Requests that hold a slot of the worker.
        """
        if not running:
            self._last = None
            return
        last, self._last = self._last, (now, seen.steps)
        if last is None:
            return
        steps = seen.steps - last[1]
        if steps <= 0:
            self._last = last  # The step goes on: it counts from where it began.
            return
        self.step(seen, running, (now - last[0]) / steps)

    def step(self, seen: Observation, running: int, seconds: float) -> None:
        """Take the time of a step, or the mean of several."""
        self._look_for_waiting(seen)
        wanted = self._most
        reason = "most"
        if self._target is not None:
            self._learn(_Step(max(1, seen.running), seconds))
            held = self._held(self._target, running)
            if held < wanted:
                wanted, reason = held, "latency"
        fits = self._fits(seen)
        if fits is not None and fits < wanted:
            wanted, reason = fits, "kv"
        if self._cap is not None and self._cap < wanted:
            wanted, reason = self._cap, "waiting"
        self._set(max(1, wanted), reason)

    def _set(self, wanted: int, reason: str) -> None:
        near = abs(wanted - self.limit) <= DEAD_BAND * self.limit
        if not near or wanted == self._most:
            self.limit = wanted
        self.reason = reason

    # ---- latency --------------------------------------------------------------------------------

    def _learn(self, step: _Step) -> None:
        expected = self._base + self._slope * step.size
        off = bool(self._seen) and abs(step.seconds - expected) > FORGET_BEYOND * expected
        self._off = self._off + 1 if off else 0
        if self._off >= 2:
            self._off = 0
            for _ in range(len(self._seen) - 1):
                self._seen.popleft()
        self._seen.append(step)
        count = len(self._seen)
        size = sum(each.size for each in self._seen) / count
        seconds = sum(each.seconds for each in self._seen) / count
        spread = sum((each.size - size) ** 2 for each in self._seen)
        if spread > count * (SPREAD * size) ** 2:
            slope = (
                sum((each.size - size) * (each.seconds - seconds) for each in self._seen) / spread
            )
            self._share = min(1.0, max(0.02, slope * size / seconds))
        self._slope = self._share * seconds / size
        self._base = seconds - self._slope * size

    def _held(self, target: float, running: int) -> int:
        """The largest limit whose steps stay within the target, not far from what was tried."""
        target = max(target, SLOWEST * (self._base + self._slope))
        tried = max(running, *(step.size for step in self._seen))
        return min(int((target - self._base) / self._slope + 1e-6), 2 * tried)

    # ---- the engine's own signals ---------------------------------------------------------------

    def _fits(self, seen: Observation) -> int | None:
        """How many requests like those that run the KV cache holds."""
        if seen.kv_used < KV_TELLING or not seen.running:
            return None
        return int(KV_TARGET * seen.running / seen.kv_used + 1e-6)

    def _look_for_waiting(self, seen: Observation) -> None:
        """Cap the limit at what runs while others wait; let it go little by little."""
        self._waited = self._waited + 1 if seen.waiting else 0
        if self._waited >= WAITS:
            self._cap = max(1, seen.running)
        elif self._cap is not None and not seen.waiting:
            self._cap += max(1, self._cap // 8)
            if self._cap >= self._most:
                self._cap = None
