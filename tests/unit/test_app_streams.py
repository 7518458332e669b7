"""Streams of functions: batches, windows, cancellation, continuation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from millstream import App
from tests.unit.app_bench import bench

KINDS = ["gen@1", "agen@1"]


def endless() -> tuple[App, list[int], threading.Event]:
    """Two generators that never stop, what they yielded last, and whether one was closed."""
    app = App()
    last = [0]
    closed = threading.Event()

    @app.model("gen")
    def gen() -> Iterator[int]:
        try:
            while True:
                last[0] += 1
                yield last[0]
        finally:
            closed.set()

    @app.model("agen")
    async def agen() -> AsyncIterator[int]:
        try:
            while True:
                last[0] += 1
                yield last[0]
        finally:
            await asyncio.sleep(0)
            closed.set()

    return app, last, closed


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_is_paused_by_its_window_and_goes_on(kind: str) -> None:
    app, last, closed = endless()
    async with bench(app, kind) as running:
        job = running.submit()
        running.on_output = lambda output: running.engine.window(output.job, False)
        await running.until(lambda: bool(running.heard))
        stopped = len(running.heard[job])
        for _ in range(50):
            await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        assert len(running.heard[job]) <= stopped + 64
        assert last[0] <= stopped + 258
        running.on_output = lambda _: None
        running.engine.window(job, True)
        await running.until(lambda: len(running.heard[job]) > 5000)
        assert not closed.is_set()
        running.engine.abort(job)
        heard = len(running.heard[job])
        assert await asyncio.to_thread(closed.wait, 10)
        assert len(running.heard[job]) == heard
        assert running.items(job) == list(range(1, heard + 1))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_paused_stream_is_closed_when_it_is_cancelled(kind: str) -> None:
    app, _, closed = endless()
    async with bench(app, kind) as running:
        freed = asyncio.Event()
        running.engine.on_room = freed.set
        job = running.submit()
        running.on_output = lambda output: running.engine.window(output.job, False)
        await running.until(lambda: bool(running.heard))
        for _ in range(5):
            await asyncio.sleep(0)
        running.engine.abort(job)
        await freed.wait()
        assert closed.is_set()


async def test_items_of_one_turn_come_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.app.outbox.TURN_SECONDS", 60.0)  # However busy the machine is.
    app = App()

    @app.model("count")
    async def count(n: int) -> AsyncIterator[int]:
        for item in range(n):
            yield item

    async with bench(app) as running:
        jobs = [running.submit(n=50) for _ in range(3)]
        await running.until(lambda: len(running.ended) == 3)
        assert [len(batch) for batch in running.batches] == [3] * 6  # 1, 2, 4 and so on, of each.
        assert [running.items(job) for job in jobs] == [list(range(50))] * 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fast_stream_leaves_the_loop_to_others(kind: str) -> None:
    app, _, _ = endless()

    async with bench(app, kind) as running:
        running.submit()
        for _ in range(20):  # Turns of the loop, which an endless generator must not keep.
            await asyncio.sleep(0)
        await running.until(lambda: bool(running.heard))
        assert max(len(o.items) for batch in running.batches for o in batch) <= 256


@pytest.mark.parametrize("kind", KINDS)
async def test_long_items_go_one_by_one(kind: str) -> None:
    app = App()

    @app.model("gen")
    def gen() -> Iterator[bytes]:
        for _ in range(5):
            yield bytes(100_000)

    @app.model("agen")
    async def agen() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(100_000)

    async with bench(app, kind) as running:
        job = running.submit()
        await running.until(lambda: job in running.ended)
        sizes = [len(o.items) for batch in running.batches for o in batch]
        assert max(sizes) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_continued_stream_drops_what_was_delivered(kind: str) -> None:
    app = App()

    @app.model("gen", idempotent=True)
    def gen(n: int) -> Iterator[int]:
        yield from range(n)

    @app.model("agen", idempotent=True)
    async def agen(n: int) -> AsyncIterator[int]:
        for item in range(n):
            yield item

    async with bench(app, kind) as running:
        assert await running.call({"after_items": 1000}, n=1003) == [1000, 1001, 1002]
        assert await running.call({"after_items": 3}, n=3) == []
        assert await running.call(n=0) == []


@pytest.mark.parametrize("yields", [True, False])
async def test_an_async_generator_that_ignores_its_cancellation_is_closed(*, yields: bool) -> None:
    app = App()
    began, closed = asyncio.Event(), asyncio.Event()

    @app.model("call")
    async def call() -> AsyncIterator[int]:
        try:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if yields:
                    yield 1
            yield 2
        finally:
            closed.set()

    async with bench(app) as running:
        job = running.submit()
        await began.wait()
        running.engine.abort(job)
        await closed.wait()
        assert running.batches == []


async def test_a_slow_sync_generator_sends_each_item_at_once() -> None:
    app = App()
    go = threading.Semaphore(1)

    @app.model("call")
    def call() -> Iterator[int]:
        for item in range(20):
            go.acquire()
            yield item

    async with bench(app) as running:
        job = running.submit()
        for count in range(1, 21):
            await running.until(lambda: len(running.heard.get(job, ())) == count)  # noqa: B023
            go.release()
        await running.until(lambda: job in running.ended)
