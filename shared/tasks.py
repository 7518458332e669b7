"""Ending tasks."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN = 0.1


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until all have ended, however they do.

    It is said again until it is heard: before Python 3.12 `asyncio.wait_for` swallows one that
    comes as it is about to return, and a library that connects in a loop then goes on.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)  # Their errors have been seen.
