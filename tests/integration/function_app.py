"""Functions for the tests of HTTP and KServe: every kind of parameter, stream and failure."""

from __future__ import annotations

import asyncio
import io
import struct
import wave
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import numpy

from millstream import App, AppError, Audio, Context, Image, Tensor

app = App()
seen = {"yielded": 0, "holding": 0}

Vector = Annotated[numpy.ndarray, Tensor("float32", "n")]


class Mood(Enum):
    calm = 1
    wild = 2


@dataclass
class Point:
    x: float
    label: str = ""


@app.model("echo", idempotent=True)
async def echo(text: str, times: int = 1) -> str:
    return text * times


@app.model("echo", "2")
async def louder(text: str) -> str:
    return text.upper()


@app.model("rich")
async def rich(
    text: str,
    flag: bool = False,
    number: float = 0.0,
    data: bytes = b"",
    tags: list[str] = [],  # noqa: B006
    mood: Mood = Mood.calm,
    when: datetime | None = None,
    point: Point | None = None,
    vector: Vector | None = None,
    picture: Image | None = None,
    anything: Any = None,
) -> dict[str, str]:
    return {
        "text": text, "flag": str(flag), "number": str(number), "data": data.hex(),
        "tags": ",".join(tags), "mood": mood.name, "when": "" if when is None else when.isoformat(),
        "point": "" if point is None else f"{point.x} {point.label}",
        "vector": "" if vector is None else str(vector.tolist()),
        "picture": "" if picture is None else f"{picture.type} {len(picture.data)}",
        "anything": repr(anything),
    }  # fmt: skip


@app.model("double")
async def double(vector: Vector, by: float = 2.0) -> Vector:
    return (vector * by).astype("float32")


@app.model("bytes")
async def reverse(data: bytes) -> bytes:
    return data[::-1]


@app.model("told")
async def told(header: str, ctx: Context) -> str:
    return dict(ctx.metadata).get(header, "")


@app.model("nothing")
async def nothing() -> None:
    pass


@app.model("count", idempotent=True)
async def count(n: int, size: int = 0, pause: float = 0.0) -> AsyncIterator[str]:
    for place in range(n):
        await asyncio.sleep(pause)
        seen["yielded"] += 1
        yield str(place) + "x" * size


@app.model("once")
async def once(n: int) -> AsyncIterator[int]:
    for place in range(n):
        yield place


@app.model("vectors")
async def vectors(n: int) -> AsyncIterator[Vector]:
    for place in range(n):
        yield numpy.full(3, place, "float32")


@app.model("hold")
async def hold() -> AsyncIterator[int]:
    seen["holding"] += 1
    try:
        yield 0
        await asyncio.sleep(3600)
        yield 1
    finally:
        seen["holding"] -= 1


@app.model("wait")
async def wait() -> int:
    seen["holding"] += 1
    try:
        await asyncio.sleep(3600)
    finally:
        seen["holding"] -= 1
    return 0


@app.model("seen")
async def look(what: str) -> int:
    return seen[what]


@app.model("refuse")
async def refuse(status: str = "NOT_FOUND", field: str = "") -> str:
    raise AppError(status, "no such user", field=field)


@app.model("break")
async def breaking(n: int) -> AsyncIterator[int]:
    for place in range(n):
        yield place
    raise AppError("FAILED_PRECONDITION", "broken on purpose")


@app.model("frames")
def frames(n: int = 3, fail: bool = False) -> Iterator[Image]:
    for shade in range(n):
        yield Image(png(shade * 40))
    if fail:
        raise AppError("INTERNAL", "the camera is gone")


@app.model("camera")
async def camera(n: int, pause: float) -> AsyncIterator[Image]:
    for place in range(n):
        yield Image(png(place % 256))
        await asyncio.sleep(pause)


@app.model("picture")
def picture(shade: int = 0, kind: str = "image/png") -> Image:
    return Image(png(shade), kind)


@app.model("melody")
def melody(n: int = 3, pause: float = 0.0) -> Iterator[Audio]:
    for place in range(n):
        yield Audio(struct.pack(">h", place) * 800, "audio/L16;rate=8000;channels=1")


@app.model("waves")
def waves(n: int = 2) -> Iterator[Audio]:
    for place in range(n):
        held = io.BytesIO()
        with wave.open(held, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(struct.pack("<h", place) * 100)
        yield Audio(held.getvalue())


@app.model("beep")
def beep() -> Audio:
    return Audio(struct.pack(">h", 258) * 10, "audio/L16;rate=8000")


@app.model("bag", batch=True)
def bag(text: list[str]) -> Annotated[numpy.ndarray, Tensor("float32", "batch", 4)]:
    """How many there are of the first letters of each text."""
    return numpy.array([[one.count(letter) for letter in "abcd"] for one in text], "float32")


@app.model("sized")
def sized(text: str, dimensions: int = 2) -> Vector:
    return numpy.full(dimensions, len(text), "float32")


def png(shade: int) -> bytes:
    """A gray picture of 8 by 8."""

    def chunk(name: bytes, data: bytes) -> bytes:
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([shade]) * 8) * 8
    pixels = zlib.compress(rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
