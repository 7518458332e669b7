"""Calls of functions: kinds, loading, lifespan, context, card."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from millstream import App, Context
from tests.unit.app_bench import Bench, bench
from workers.app.running import RunningApp
from workers.engines.base import ModelLoadError


async def test_every_kind_of_function() -> None:
    app = App()

    @app.model("sync")
    def sync(x: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return x + 1

    @app.model("async")
    async def asynchronous(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @app.model("gen")
    def gen(x: int) -> Iterator[int]:
        assert threading.current_thread() is not threading.main_thread()
        yield from range(x)

    @app.model("agen")
    async def agen(x: int) -> AsyncIterator[int]:
        for item in range(x):
            yield item

    @app.model("bare")
    def bare(x: int) -> int:  # type: ignore[misc]
        yield from range(x)

    @app.model("abare")
    async def abare(x: int) -> int:  # type: ignore[misc]
        for item in range(x):
            yield item

    @app.model("iterator")
    def iterator(x: int) -> Iterator[int]:
        return iter(range(x))

    for name, wanted in [
        ("sync", [4]), ("async", [4]), ("gen", [0, 1, 2]), ("agen", [0, 1, 2]),
        ("bare", [0, 1, 2]), ("abare", [0, 1, 2]), ("iterator", [0, 1, 2]),
    ]:  # fmt: skip
        async with bench(app, f"{name}@1") as running:
            assert await running.call(x=3) == wanted
    assert app.models["bare@1"].signature.streaming


async def test_a_class_is_loaded_once_a_process() -> None:
    app = App()
    loads: list[str] = []

    @app.model("double")
    class Double:
        def load(self, device: str) -> None:
            assert threading.current_thread() is not threading.main_thread()
            loads.append(device)
            self.factor = 2

        async def __call__(self, x: int) -> int:
            return self.factor * x

    app.model("double", version="2")(Double)
    shared = RunningApp(app, device="cuda:1")
    from workers.app.engine import AppEngine

    engines = [AppEngine(model, shared) for model in app.models.values()]
    for engine in engines:
        running = Bench(engine)
        await engine.start(running.sink, lambda error: None)
        assert await running.call(x=4) == [8]
    for engine in engines:
        await engine.close()
    assert loads == ["cuda:1"]


async def test_a_load_hook_that_fails_stops_the_start() -> None:
    app = App()

    @app.model("a")
    class Broken:
        async def load(self) -> None:
            raise OSError("no weights")

        def __call__(self) -> None: ...

    with pytest.raises(ModelLoadError, match=r"a@1 did not load: OSError; see the worker's log$"):
        async with bench(app):
            pass


async def test_the_lifespan_runs_once_and_sets_the_state() -> None:
    said: list[str] = []

    async def lifespan(app: App) -> AsyncIterator[None]:
        app.state.greeting = "hello"
        said.append("up")
        yield
        said.append("down")

    app = App(lifespan=lifespan)

    @app.model("greet")
    def greet(context: Context) -> str:
        return f"{context.state.greeting} from {context.model}"

    app.model("greet", version="2")(greet)
    async with bench(app) as running:
        assert await running.call() == ["hello from greet@1"]
        assert said == ["up"]
    assert said == ["up", "down"]

    async def broken(app: App) -> AsyncIterator[None]:
        if not said[2:]:
            raise RuntimeError("no database")
        yield

    app = App(lifespan=broken)
    app.model("greet")(greet)
    with pytest.raises(ModelLoadError, match=r"failed: RuntimeError; see the worker's log$"):
        async with bench(app):
            pass


async def test_the_context_tells_of_the_call() -> None:
    app = App()

    @app.model("call")
    async def call(context: Context) -> list[str]:
        assert context.deadline is not None
        return [
            context.request_id, context.metadata["X-User"], context.traceparent,
            *context.metadata.getall("many"), str(context.remaining()),
            str(bool(context.cancelled)),
        ]  # fmt: skip

    async with bench(app) as running:
        job = {
            "request_id": "r7", "traceparent": "00-1", "remaining": lambda: 3.0,
            "metadata": (("x-user", "ann"), ("many", "1"), ("many", "2")),
        }  # fmt: skip
        assert await running.call(job) == [["r7", "ann", "00-1", "1", "2", "3.0", "False"]]


def test_the_card_says_what_the_gateway_needs() -> None:
    app = App()

    @app.model("call", version="2", idempotent=True, wait=True, concurrency=3)
    def call() -> Iterator[str]:
        yield ""

    from workers.app.engine import AppEngine

    card = AppEngine(app.models["call@2"], RunningApp(app)).card
    assert card.name == "call@2"
    assert card.features == ("predict", "stream", "resume", "wait")
    assert (card.engine, card.max_batch) == ("app", 3)
