"""Batched functions that stream: one generator for all, and each call ends and reads for itself."""
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from millstream import END, App, Context, End
from shared.errors import EngineError, Overloaded
from tests.unit.app_bench import bench, calls


def counting(kind: str, closed: threading.Event, *, after: int = 10**9) -> App:
    """A stream of a batch: each call counts to its own number; who asks for 13 has an error."""
    app = App()

    def step(at: int, n: list[int]) -> list[int | End | Exception | None]:
        return [
            END if at >= one else ValueError() if one == 13 and at == 1 else
            None if at % 2 and one % 2 else at for one in n
        ]  # fmt: skip

    if kind == "sync":

        @app.model("count", batch=True)
        def count(n: list[int], ctx: list[Context]) -> Iterator[list[int | End | Exception | None]]:
            try:
                for at in range(after):
                    yield step(at, n)
            finally:
                closed.set()

    else:

        @app.model("count", batch=True)
        async def acount(n: list[int]) -> AsyncIterator[list[int | End | Exception | None]]:
            try:
                for at in range(after):
                    yield step(at, n)
                    await asyncio.sleep(0)
            finally:
                closed.set()

    return app


KINDS = ["sync", "async"]


@pytest.mark.parametrize("kind", KINDS)
async def test_one_generator_streams_to_every_call(kind: str) -> None:
    closed = threading.Event()
    async with bench(counting(kind, closed)) as running:
        assert running.engine.card.features[:2] == ("predict", "stream")
        got = await calls(running, {"n": 3}, {"n": 6}, {"n": 13}, {"n": 0})
        assert got[0] == [0, 2] and got[1] == [0, 1, 2, 3, 4, 5] and got[3] == []
        assert isinstance(got[2], EngineError)
        assert await asyncio.to_thread(closed.wait, 10)
        assert running.engine.batches == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_ends_with_its_generator(kind: str) -> None:
    async with bench(counting(kind, threading.Event(), after=2)) as running:
        assert await calls(running, {"n": 50}, {"n": 60}) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_cancelled_in_the_middle_of_a_stream(kind: str) -> None:
    closed = threading.Event()
    async with bench(counting(kind, closed)) as running:
        one, other = running.submit(n=10**8), running.submit(n=10**8)
        await running.until(lambda: len(running.heard.get(one, ())) > 2)
        running.engine.abort(one)
        heard = len(running.heard[one])
        more = len(running.heard[other]) + 100
        await running.until(lambda: len(running.heard[other]) > more)
        assert len(running.heard[one]) == heard and not closed.is_set()
        running.engine.abort(other)
        assert await asyncio.to_thread(closed.wait, 10), "nobody is left"
        assert await running.call(n=2) == [0, 1]


async def test_a_batch_learns_of_cancelled_calls_by_their_contexts() -> None:
    app = App()
    learned = threading.Event()

    @app.model("f", batch=True)
    def f(x: list[int], ctx: list[Context]) -> Iterator[list[int]]:
        while not any(one.cancelled for one in ctx):
            time.sleep(0.001)
            yield x
        learned.set()

    async with bench(app) as running:
        one, other = running.submit(x=1), running.submit(x=2)
        await running.until(lambda: one in running.heard)
        running.engine.abort(one)
        await running.until(lambda: other in running.ended)
        assert learned.is_set()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_slow_reader_holds_a_batch_up_only_for_so_long(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.app.items.HOLD", 16)
    monkeypatch.setattr("workers.app.batchruns.PATIENCE", 0.05)
    async with bench(counting(kind, threading.Event())) as running:
        slow, fast = running.submit(n=10**8), running.submit(n=1000)
        running.engine.window(slow, False)
        await running.until(lambda: slow in running.ended and fast in running.ended)
        assert isinstance(running.ended[slow], Overloaded)
        assert running.items(fast) == list(range(1000))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_held_for_a_reader_comes_when_it_reads(kind: str) -> None:
    async with bench(counting(kind, threading.Event())) as running:
        slow, fast = running.submit(n=100), running.submit(n=300)
        running.engine.window(slow, False)
        await running.until(lambda: fast in running.ended)
        assert slow not in running.ended and not running.heard.get(slow)
        running.engine.window(slow, True)
        await running.until(lambda: slow in running.ended)
        assert running.items(slow) == list(range(100))


async def test_a_stream_that_fails_goes_on_where_it_was_for_those_who_can() -> None:
    app = App()

    @app.model("f", batch=True, idempotent=True)
    def f(n: list[int]) -> Iterator[list[int]]:
        for at in range(6):
            if at == 3 and 13 in n:
                raise ValueError
            yield [at] * len(n)

    async with bench(app) as running:
        got = await calls(running, {"n": 1}, {"n": 13}, {"n": 2})
        assert got[0] == got[2] == list(range(6))
        assert isinstance(got[1], EngineError)
