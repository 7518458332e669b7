"""Streams without end, and what two workers serve."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import numpy

from millstream import App, Audio, Context, Image, Tensor, Video
from tests.eventually import until

made: Counter[str] = Counter()


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    notes = Path(os.environ["LIFE_NOTES"]) if "LIFE_NOTES" in os.environ else None
    app.state.began = True
    if notes is not None:
        notes.write_text("began\n")
    yield
    if notes is not None:
        notes.write_text(notes.read_text() + "ended\n")


app = App("streams", lifespan=lifespan)

Turned = Annotated[numpy.ndarray, Tensor("float32", None, None)]
Floats = Annotated[numpy.ndarray, Tensor("float32", "rows", "columns")]


@app.model("flood")
async def flood(name: str, size: int) -> AsyncIterator[bytes]:
    try:
        while True:
            made[name] += 1
            yield bytes(size)
    finally:
        made[f"{name} ended"] += 1


@app.model("flood-sync")
def flood_sync(name: str, size: int) -> Iterator[bytes]:
    try:
        while True:
            made[name] += 1
            yield bytes(size)
    finally:
        made[f"{name} ended"] += 1


@app.model("waiting")
def waiting(name: str, context: Context) -> str:
    made[name] += 1
    context.cancelled.wait(30)
    made[f"{name} ended"] += 1
    return threading.current_thread().name


@app.model("deaf")
def deaf(seconds: float) -> float:
    time.sleep(seconds)
    made["deaf ended"] += 1
    return seconds


@app.model("made")
async def told() -> dict[str, int]:
    return dict(made)


@app.model("began")
async def began(context: Context) -> bool:
    return bool(context.state.began)


@app.model("sum")
async def total(rows: Floats) -> float:
    return float(rows.sum())


@app.model("turned")
async def turned(rows: Floats, times: int) -> AsyncIterator[Turned]:
    for _ in range(times):
        rows = numpy.ascontiguousarray(rows.T)
        yield rows


@app.model("look")
async def look(image: Image) -> Image:
    return Image(image.data[::-1], image.type)


@app.model("listen")
def listen(audio: Audio, pieces: int) -> Iterator[Audio]:
    for _ in range(pieces):
        yield audio


@app.model("watch")
def watch(videos: list[Video]) -> Video:
    return Video(b"".join(one.data for one in videos), videos[0].type)


@app.model("once")
async def once(n: int, seconds: float = 0.0) -> AsyncIterator[list[int]]:
    for number in range(n):
        yield [number, os.getpid()]
        await asyncio.sleep(seconds)


@app.model("again", idempotent=True)
async def again(n: int, gate: str = "") -> AsyncIterator[list[int]]:
    """Where a gate is named, only five items come until there is a file of that name."""
    for number in range(n):
        if gate and number == 5:
            await until(Path(gate).exists, "the gate is open")
        yield [number, os.getpid()]


@app.model("answer", idempotent=True)
async def answer(gate: str) -> int:
    await until(Path(gate).exists, "the gate is open")
    return os.getpid()


@app.model("answer-once")
async def answer_once(gate: str) -> int:
    return await answer(gate)
