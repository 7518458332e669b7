"""Functions that two workers serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from millstream import App
from tests.eventually import until

app = App("small")


@app.model("process")
async def process(seconds: float = 0.05) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@app.model("processes")
async def processes(n: int, gate: str) -> AsyncIterator[int]:
    """One item at once, the others once there is a file of that name."""
    yield os.getpid()
    await until(Path(gate).exists, "the gate is open")
    for _ in range(n - 1):
        yield os.getpid()
