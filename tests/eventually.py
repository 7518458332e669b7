"""Waiting for what other processes or tasks bring about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TICK = 0.02


def eventually(condition: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    """Poll until `condition` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(TICK)
    return result


async def until(
    condition: Callable[[], T], what: str, seconds: float = 30.0, *, every: float = TICK
) -> T:
    """The same in a loop that goes on meanwhile; `every` is in seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(every)
    return result
