"""The token bucket: a rate with room for bursts. Pure; time comes in."""

from __future__ import annotations

import math


class Bucket:
    """Fills at `rate` a second up to `capacity`; what is taken may put it into debt.

    Args:
        rate: Units a second; infinite never runs dry.
        capacity: Units it holds, and begins with.
        now: Monotonic seconds.
    """

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._at = now

    def level(self, now: float) -> float:
        """Units in it."""
        if math.isinf(self.rate):
            return math.inf
        self._level = min(self.capacity, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be taken, 0 for now; more than it holds waits until full."""
        missing = min(amount, self.capacity) - self.level(now)
        return max(0.0, missing / self.rate) if missing > 0 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take, or with a negative amount give back."""
        if not math.isinf(self.level(now)):
            self._level = min(self.capacity, self._level - amount)
