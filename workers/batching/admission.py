"""How many requests a worker runs at once: as many as keep the time between two tokens in bounds.

A step of an engine takes about `base + slope * size`. Both are fitted to the last steps, and the
limit is where that line meets the target. While the steps seen are too much of one size to tell
the slope, the line known so far is scaled to them; the first is one through the origin, which errs
to the small side, so where it says to stop a somewhat larger size is tried. The limit never grows
beyond twice what was tried. Steps in a row that are off the line mean that the engine has
changed: what was seen before is forgotten. A single one, a long prompt's say, is left out.

Two signals of the engine's own cap the limit: the share of the KV cache that requests take, and
requests that wait inside the engine, which would be better off in the queue, where any worker
takes them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from workers.engines.base import Observation

WINDOW = 12
OFF, OFTEN = 0.03, 3
"""Off the line by this share or more (by the usual noise), so often in a row: another engine."""

NOISE = 0.01
"""Steps of one size differ by this share at least, for all we know."""

SURE = 0.15
"""A slope is known when its standard error is below this share of it."""

PROBE = 1.2
PROBES = 3
"""How much more is tried to learn the slope, and how often."""

DEAD_BAND = 0.025
"""A limit that would change by less than this share stays."""

KV_TARGET = 0.97
KV_TELLING = 0.25
"""A KV cache fuller than this says how many requests it holds."""

WAITS = 3
"""So many looks in a row at requests waiting in the engine are no accident."""

SLOWEST = 1.5
"""Out of the target's reach, a step may take this many times what the smallest is known to take."""


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
        self._base = 0.0
        self._slope = 0.0
        self._sure = False
        self._probes = PROBES
        self._noise = NOISE
        self._off: list[tuple[float, _Step]] = []
        self._waited = 0
        self._cap: int | None = None
        self._last: tuple[float, int] | None = None

    @property
    def learns(self) -> bool:
        """Whether it needs to see the engine's steps one by one."""
        return self._target is not None

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
        if self._sure and self._is_off(step):
            return
        self._seen.append(step)
        count = len(self._seen)
        size = sum(each.size for each in self._seen) / count
        seconds = sum(each.seconds for each in self._seen) / count
        if not self._slope:
            self._slope = seconds / size
        elif not self._fit(size, seconds):
            changed = seconds / (self._base + self._slope * size)
            self._base *= changed
            self._slope *= changed

    def _is_off(self, step: _Step) -> bool:
        """Whether the line does not explain a step; three such that agree end the line."""
        expected = self._base + self._slope * step.size
        share = (step.seconds - expected) / expected
        beyond = max(OFF, 4 * self._noise)
        self._noise += 0.1 * (min(abs(share), beyond) - self._noise)
        if abs(share) <= beyond:
            self._off.clear()
            return False
        if self._off and (self._off[-1][0] > 0) != (share > 0):
            self._off.clear()
        self._off.append((share, step))
        if len(self._off) < OFTEN:
            return True
        self._seen.clear()
        self._seen.extend(each for _, each in self._off[:-1])
        self._off.clear()
        self._sure = False
        self._probes = PROBES
        return False

    def _fit(self, size: float, seconds: float) -> bool:
        """Lay the line through the steps, whose means are given, if they tell its slope."""
        spread = sum((step.size - size) ** 2 for step in self._seen)
        if not spread:
            return False
        slope = sum((step.size - size) * (step.seconds - seconds) for step in self._seen) / spread
        off = sum((step.seconds - seconds - slope * (step.size - size)) ** 2 for step in self._seen)
        noise = max(off / len(self._seen), (NOISE * seconds) ** 2)
        error = math.sqrt(noise / spread)
        sure = error <= SURE * slope
        if self._sure and not sure:
            return False
        self._sure = sure
        # Not sure, it is taken for as steep as it may well be.
        self._slope = min(seconds / size, slope if sure else max(0.0, slope) + error)
        self._base = seconds - self._slope * size
        return True

    def _held(self, target: float, running: int) -> int:
        """The largest limit whose steps stay within the target, not far from what was tried."""
        if self._sure:
            target = max(target, SLOWEST * (self._base + self._slope))
        held = int((target - self._base) / self._slope + 1e-6)
        tried = max((running, *(step.size for step in self._seen)))
        if not self._sure and self._probes and self.limit * (1 - DEAD_BAND) <= held <= self.limit:
            self._probes -= 1
            held = math.ceil(self.limit * PROBE)
        return min(held, 2 * tried)

    # ---- the engine's own signals ---------------------------------------------------------------

    def _fits(self, seen: Observation) -> int | None:
        """How many requests like those that run the KV cache holds, with some room to grow.

        None where it holds as many as ever run at once: then it is not what limits them, and one
        that is made of so many slots may be full.
        """
        if seen.kv_used < KV_TELLING or not seen.running:
            return None
        room = seen.running / seen.kv_used
        if room > self._most - 1e-6:
            return None
        return int(max(KV_TARGET * room, room - 1) + 1e-6)

    def _look_for_waiting(self, seen: Observation) -> None:
        """Cap the limit at what runs while others wait; let it go little by little."""
        self._waited = self._waited + 1 if seen.waiting else 0
        if self._waited >= WAITS:
            self._cap = max(1, seen.running)
        elif self._cap is not None and not seen.waiting:
            self._cap += max(1, self._cap // 8)
            if self._cap >= self._most:
                self._cap = None
