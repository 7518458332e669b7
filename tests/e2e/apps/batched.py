"""Functions that take batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import numpy

from millstream import END, App, AppError, End, Tensor
from tests.eventually import until

app = App("batched")
sizes: list[int] = []


@app.model("together", batch=True, max_batch=32)
async def together(x: list[int]) -> list[int | Exception]:
    sizes.append(len(x))
    await asyncio.sleep(0.05)
    return [AppError("OUT_OF_RANGE", "below 0") if one < 0 else one * 2 for one in x]


@app.model("together-held", batch=True, max_batch=32)
async def together_held(x: list[int], gate: list[str]) -> list[int]:
    """Each batch ends once there is a file of that name."""
    sizes.append(len(x))
    await until(Path(gate[0]).exists, "the gate is open")
    return [one * 2 for one in x]


@app.model("together-nap", batch=True, max_batch=32)
def together_nap(seconds: list[float]) -> list[float]:
    sizes.append(len(seconds))
    time.sleep(max(seconds))
    return seconds


@app.model("together-fast", batch=True)
async def together_fast(x: list[int]) -> list[int]:
    return x


@app.model("together-cancelled", batch=True)
async def together_cancelled(x: list[int]) -> list[int]:
    if min(x) < 0:
        raise asyncio.CancelledError
    return x


@app.model("together-arrays", batch=True)
def together_arrays(
    pair: Annotated[numpy.ndarray, Tensor("float32", "batch", 2)],
) -> Annotated[numpy.ndarray, Tensor("float32", "batch")]:
    assert pair.ndim == 2
    sums: numpy.ndarray = pair.sum(axis=1)
    return sums


@app.model("countdown", batch=True)
async def countdown(n: list[int]) -> AsyncIterator[list[int | End]]:
    left = n
    while max(left) > 0:
        yield [one if one > 0 else END for one in left]
        left = [one - 1 for one in left]


@app.model("sizes")
async def told_sizes() -> list[int]:
    told, sizes[:] = list(sizes), []
    return told
