"""Batched functions for the tests of the whole stack; each answer says how large its batch was."""

from __future__ import annotations

import time
from collections.abc import Iterator

from millstream import END, App, AppError, End

app = App()


@app.model("slow", batch=True)
def slow(x: list[int]) -> list[int]:
    """Takes 300 ms, however many there are."""
    time.sleep(0.3)
    return [len(x)] * len(x)


@app.model("picky", batch=True)
def picky(x: list[int]) -> list[int | AppError]:
    """Refuses odd numbers."""
    time.sleep(0.02)
    return [AppError("OUT_OF_RANGE", "odd") if one % 2 else one for one in x]


@app.model("count", batch=True)
def count(n: list[int]) -> Iterator[list[int | End]]:
    """Counts, each call to its own number."""
    at = 0
    while True:
        yield [END if at >= one else at for one in n]
        at += 1
