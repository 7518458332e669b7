"""An app that the end-to-end tests serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any

import numpy
from numpy.typing import NDArray

from millstream import App, AppError, Context, Image, Tensor

Pairs = Annotated[NDArray[numpy.float32], Tensor("float32", "n", 2)]

app = App()
seen = {"made": 0, "ended": 0, "calls": 0}


class Size(Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class Item:
    what: str
    count: int = 1


@app.model("greet")
def greet(who: str, polite: bool = False) -> str:
    seen["calls"] += 1
    return f"good day {who}" if polite else f"hello {who}"


@app.model("greet", version="2")
def greet_louder(who: str) -> str:
    return f"HELLO {who}"


@app.model("order")
async def order(
    items: list[Item], size: Size = Size.SMALL, when: datetime | None = None
) -> dict[str, Any]:
    day = (when or datetime(2026, 1, 1, tzinfo=UTC)) + timedelta(days=1)
    return {"total": sum(item.count for item in items), "size": size.name, "day": str(day.date())}


@app.model("scale")
def scale(x: Pairs, by: float = 2.0) -> Pairs:
    return x * numpy.float32(by)


@app.model("fail")
async def fail(how: str) -> str:
    if how == "deliberately":
        raise AppError("FAILED_PRECONDITION", "not on Sundays", details=[stamp()])
    raise KeyError("a secret")


@app.model("count")
async def count(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


@app.model("frames")
def frames(picture: Image, n: int = 3) -> Iterator[Image]:
    for number in range(n):
        yield Image(picture.data + bytes([number]), picture.type)


@app.model("endless")
async def endless(size: int) -> AsyncIterator[bytes]:
    seen["made"] = 0
    try:
        while True:
            seen["made"] += 1
            yield bytes(size)
    finally:
        seen["ended"] += 1


@app.model("slow")
async def slow(context: Context) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        seen["ended"] += 1
    return context.request_id


@app.model("counts")
async def counts() -> dict[str, int]:
    return dict(seen)


@app.model("told")
async def told(context: Context) -> list[str]:
    return [context.request_id, context.metadata.get("x-user", "")]


def stamp() -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    return Timestamp(seconds=7)
