"""When a clock that does what is due ticks next: each tick wakes its process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

TICK = 0.02
"""Seconds between two ticks while something is due soon."""


def pause(dues: Iterable[float], now: float, most: float) -> float:
    """Seconds until the earliest of these times, at least `TICK` and at most `most`."""
    return max(TICK, min(most, min(dues, default=now + most) - now))


class Rest:
    """The rest between two ticks. What wakes the process anyway may end it early."""

    def __init__(self) -> None:
        self._over: asyncio.Future[None] | None = None

    async def for_(self, seconds: float) -> None:
        """Rest so long, or until `end`."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        timer = loop.call_later(seconds, self.end)
        try:
            await self._over
        finally:
            timer.cancel()

    def end(self) -> None:
        """Tick now."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
