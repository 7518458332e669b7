"""The functions with which the features and faults of BlazeRPC are tried here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpclib
import numpy
from google.rpc.error_details_pb2 import ResourceInfo
from grpclib.exceptions import GRPCError

from millstream import App, AppError, Context, Depends, Logging, Metrics, Middleware, Tensor, Traces
from tests.eventually import eventually, until

Pairs = Annotated[numpy.ndarray, Tensor("float32", "rows", 2)]
seen: Counter[str] = Counter()


class Stamp(Middleware):
    """Counts what happens around calls."""

    def before(self, context: Context, inputs: dict[str, Any]) -> None:
        seen["requests"] += 1

    def on_item(self, context: Context, item: Any) -> Any:
        seen["items"] += 1
        return item

    def after(self, context: Context) -> None:
        seen["responses"] += 1


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    app.state.motto = "every token once"
    yield


app = App("blazerpc", lifespan=lifespan, middleware=[Stamp(), Logging(), Metrics(), Traces()])


@dataclass
class Kinds:
    text: str
    whole: int
    real: float
    truth: bool
    raw: bytes
    many: list[int]


@app.model("kinds")
async def kinds(
    text: str, whole: int, real: float, truth: bool, raw: bytes, many: list[int]
) -> Kinds:
    return Kinds(text, whole, real, truth, raw, many)


@app.model("echo")
async def echo(text: str, times: int = 2) -> str:
    return text * times


@app.model("double")
def double(pairs: Pairs) -> Pairs:
    return pairs * 2


@app.model("real")
async def real(x: float) -> float:
    return x


@app.model("options")
async def options(limit: int | None = None, tags: dict[str, int] | None = None) -> str:
    return f"{limit!r} {tags!r}"


@app.model("count")
async def count(to: int) -> AsyncIterator[str]:
    for number in range(to):
        yield str(number)


@app.model("plain", streaming=True)
async def plain(to: int) -> str:  # type: ignore[misc]  # BlazeRPC's way to annotate a stream.
    for number in range(to):
        yield str(number)


@app.model("words")
def words(text: str) -> Iterator[str]:
    yield from text.split()


@app.model("held-words")
def held_words(text: str, gate: str) -> Iterator[str]:
    """The first word at once; then it blocks until there is a file of that name."""
    first, *others = text.split()
    yield first
    eventually(Path(gate).exists, "the gate is open", 30)
    yield from others


@app.model("endless")
async def endless(name: str) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        seen[f"cancelled {name}"] += 1
        raise
    finally:
        seen[f"ended {name}"] += 1


@app.model("endless-sync")
def endless_sync(name: str) -> Iterator[int]:
    try:
        while True:
            yield 0
    finally:
        seen[f"ended {name}"] += 1


def user(context: Context) -> str:
    return f"user {context.metadata['x-user']}"


@app.model("told")
async def told(context: Context, user: Annotated[str, Depends(user)]) -> dict[str, Any]:
    return {
        "user": user,
        "model": context.model,
        "request": context.request_id,
        "motto": context.state.motto,
        "deadline": context.remaining(),
    }


@app.model("nap")
def nap(seconds: float = 0.3) -> float:
    time.sleep(seconds)
    return seconds


@app.model("one-by-one", concurrency=1)
async def one_by_one(name: str, gate: str = "") -> str:
    """Ends once there is a file of that name, if one is named."""
    seen[f"ran {name}"] += 1
    if gate:
        await until(Path(gate).exists, "the gate is open")
    return name


@app.model("fail")
async def fail(how: str) -> str:
    if how == "grpclib":
        details = [ResourceInfo(resource_type="user", resource_name="7")]
        raise GRPCError(grpclib.const.Status.NOT_FOUND, "no user 7", details)
    if how == "app":
        raise AppError("FAILED_PRECONDITION", "not yet")
    if how == "cancelled":
        raise asyncio.CancelledError
    raise KeyError("a secret")


@app.model("greet")
async def greet(who: str) -> str:
    return f"hello {who}"


@app.model("greet", version="2")
async def greet_louder(who: str, marks: int = 1) -> str:
    return f"HELLO {who}{'!' * marks}"


@app.model("class")
async def class_(def_: int) -> int:
    return def_


@app.model("my-odd_name")
async def odd(x: int) -> int:
    return x


@app.model("seen")
async def told_what_was_seen() -> dict[str, int]:
    return dict(seen)


@app.model("size")
async def size(data: bytes, more: int = 0) -> bytes:
    return data + bytes(more)
