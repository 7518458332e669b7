"""Cancelled calls, and sync functions beside a loop that turns on."""

from __future__ import annotations

import asyncio
import threading

from millstream import App, Context
from tests.unit.app_bench import bench

# ---- cancellation -------------------------------------------------------------------------------


async def test_an_async_function_gets_cancelled_at_its_await() -> None:
    app = App()
    began, ended = asyncio.Event(), asyncio.Event()

    @app.model("call")
    async def call() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with bench(app) as running:
        freed = asyncio.Event()
        running.engine.on_room = freed.set
        job = running.submit()
        await began.wait()
        assert running.engine.room() == 255
        running.engine.abort(job)
        running.engine.abort(job)
        running.engine.abort(999)
        await freed.wait()
        assert ended.is_set()
        assert running.engine.room() == 256
        assert running.batches == []


async def test_a_sync_function_sees_that_it_is_cancelled_and_keeps_its_slot_until_then() -> None:
    app = App()
    began, go = threading.Event(), threading.Event()

    @app.model("call", concurrency=1)
    def call(context: Context) -> str:
        began.set()
        assert context.cancelled.wait(10)
        assert context.cancelled
        go.wait(10)
        return "too late"

    async with bench(app) as running:
        freed = asyncio.Event()
        running.engine.on_room = freed.set
        job = running.submit()
        await asyncio.to_thread(began.wait)
        running.engine.abort(job)
        assert running.engine.room() == 0
        assert running.engine.observe().running == 1
        go.set()
        await freed.wait()
        assert running.engine.room() == 1
        assert running.batches == []


async def test_a_call_that_waits_or_has_not_begun_is_never_called() -> None:
    app = App()
    calls = []

    @app.model("call", concurrency=1)
    async def call(x: int) -> int:
        calls.append(x)
        return x

    async with bench(app) as running:
        first, second, third = (running.submit(x=x) for x in range(3))
        assert running.engine.observe().waiting == 2
        assert running.engine.room() == 0
        running.engine.abort(first)
        running.engine.abort(second)
        await running.until(lambda: third in running.ended)
        assert calls == [2]
        assert list(running.ended) == [third]


async def test_close_ends_what_runs() -> None:
    app = App()
    said = []

    @app.model("call")
    async def call() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("cleaned up")
        return 1

    async with bench(app) as running:
        running.submit()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert said == ["cleaned up"]


# ---- the loop -----------------------------------------------------------------------------------


async def test_sync_functions_run_at_once_and_never_block_the_loop() -> None:
    app = App()
    together = threading.Barrier(8)

    @app.model("call")
    def call() -> bool:
        together.wait(10)  # Passed only by eight at once.
        return True

    async with bench(app) as running:
        jobs = [running.submit() for _ in range(8)]
        steps = running.engine.observe().steps
        await running.until(lambda: len(running.ended) == 8)
        assert all(running.items(job) == [True] for job in jobs)
        assert running.engine.observe().steps > steps


async def test_a_worker_is_never_hung_while_its_loop_turns() -> None:
    app = App()
    go = threading.Event()

    @app.model("call")
    def call() -> None:
        go.wait(10)

    async with bench(app) as running:
        running.submit()
        looks = [running.engine.observe() for _ in range(3)]
        assert [look.steps for look in looks] == [1, 2, 3]
        assert looks[0].running == 1
        go.set()


async def test_threads_end_with_the_app() -> None:
    app = App()

    @app.model("call")
    def call() -> int:
        return threading.get_ident()

    async with bench(app) as running:
        [ident] = await running.call()
        [thread] = [t for t in threading.enumerate() if t.ident == ident]
        assert thread.daemon
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
