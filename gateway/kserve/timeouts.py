"""The request parameter `timeout`."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.errors import DeadlineExceeded


async def until(seconds: float | None, work: Any) -> None:
    """Await work, for so long.

    Raises:
        DeadlineExceeded: It took longer.
    """
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await work
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(f"the timeout of {seconds:g} s has passed") from None
