"""When a clock that does what is due ticks next: each tick wakes its process. Pure."""

from __future__ import annotations

from collections.abc import Iterable

TICK = 0.02
"""Seconds between two ticks while something is due soon."""


def pause(dues: Iterable[float], now: float, most: float) -> float:
    """Seconds until the earliest of these times, at least `TICK` and at most `most`."""
    return max(TICK, min(most, min(dues, default=now + most) - now))
