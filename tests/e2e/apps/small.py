"""Functions that two workers serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from millstream import App

app = App("small")


@app.model("process")
async def process(seconds: float = 0.05) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@app.model("processes")
async def processes(n: int, seconds: float) -> AsyncIterator[int]:
    for _ in range(n):
        yield os.getpid()
        await asyncio.sleep(seconds)
