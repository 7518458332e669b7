"""How long a batch takes by its size: a line, learned from the batches that ran. Pure.

What is seen is kept by size, in classes that double, and of each class only the last few: the line
is laid through the middle third of each, and a load that stays at one size does not make the others
forgotten. A batch that is off the line is left out. Several in a row to the same side mean that the
function or the machine has changed: then all that is known is scaled.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

KEPT = 9
"""Batches of one class of sizes that are remembered."""

FEW = 3
"""With fewer of its class known, a batch is no odd one."""

OFF, OFTEN = 1.25, 5
"""Off the line by this factor, so often in a row: everything has changed."""


class Latency:
    """Seconds of a batch: `base + slope * size`.

    Attributes:
        base: Seconds, at least 0.
        slope: Seconds an item, at least 0.
        known: Whether anything was seen.
        sure: Whether different sizes were seen; until then the line goes through the origin.
        tried: The largest size seen.
    """

    def __init__(self) -> None:
        self.base = self.slope = 0.0
        self.known = self.sure = False
        self.tried = 0
        self._seen: dict[int, deque[tuple[int, float]]] = {}
        self._points: dict[int, tuple[float, float, float]] = {}
        self._off: list[float] = []

    def __call__(self, size: int) -> float:
        """Seconds that a batch is expected to take."""
        return self.base + self.slope * size

    def largest(self, seconds: float) -> float:
        """The largest size that takes no longer; infinite where size makes no difference."""
        left = seconds - self.base
        if self.slope <= 0:
            return math.inf if left >= 0 else 0
        return max(0.0, left / self.slope + 1e-9)

    def learn(self, size: int, seconds: float) -> None:
        """A batch took so long."""
        seconds = max(seconds, 1e-6)
        self.tried = max(self.tried, size)
        seen = self._seen.setdefault(size.bit_length(), deque(maxlen=KEPT))
        if len(seen) >= FEW and self._is_off(size, seconds):
            return
        seen.append((size, seconds))
        self._summarise(size.bit_length())
        self._fit()

    def _is_off(self, size: int, seconds: float) -> bool:
        """Whether a batch is to be left out: one that is off the line, unless many are."""
        ratio = seconds / self(size)
        if 1 / OFF <= ratio <= OFF:
            self._off.clear()
            return False
        if self._off and (self._off[-1] > 1) != (ratio > 1):
            self._off.clear()
        self._off.append(ratio)
        if len(self._off) < OFTEN:
            return True
        factor = median(self._off)
        self._off.clear()
        for kind, seen in self._seen.items():
            self._seen[kind] = deque([(n, t * factor) for n, t in seen], maxlen=KEPT)
            self._summarise(kind)
        self._fit()
        return True

    def _summarise(self, kind: int) -> None:
        seen = sorted(self._seen[kind], key=lambda one: one[1])
        cut = (len(seen) - 1) // 3
        middle = seen[cut : len(seen) - cut]
        size = sum(n for n, _ in middle) / len(middle)
        seconds = sum(t for _, t in middle) / len(middle)
        self._points[kind] = (size, seconds, len(seen) / seconds**2)

    def _fit(self) -> None:
        """Lay the line through the classes, by relative errors, with nothing below 0."""
        self.known = True
        points = list(self._points.values())
        self.sure = len(points) > 1
        weight = sum(w for _, _, w in points)
        size = sum(w * n for n, _, w in points) / weight
        seconds = sum(w * t for _, t, w in points) / weight
        spread = sum(w * (n - size) ** 2 for n, _, w in points)
        if self.sure:
            slope = sum(w * (n - size) * (t - seconds) for n, t, w in points) / spread
        else:
            slope = seconds / size
        self.slope = slope if slope * size > 1e-9 * seconds else 0.0  # Less is rounding.
        self.base = seconds - self.slope * size
        if self.base < 0:
            self.base = 0.0
            self.slope = sum(w * n * t for n, t, w in points) / sum(w * n * n for n, _, w in points)
