"""Middleware and dependencies: what happens around a call, and in which order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from prometheus_client import CollectorRegistry

from millstream import App, AppError, Context, Depends, Middleware
from shared.errors import EngineError, FunctionError
from tests.unit.app_bench import bench
from workers.app.instruments import Logging, Metrics, Traces


class Noting(Middleware):
    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said

    async def before(self, context: Context, inputs: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.said.append(f"{self.name} before {inputs['n']}")

    def on_item(self, context: Context, item: Any) -> Any:
        self.said.append(f"{self.name} item {item}")
        return item * 10

    def after(self, context: Context) -> None:
        self.said.append(f"{self.name} after")

    def on_error(self, context: Context, error: BaseException) -> BaseException | None:
        self.said.append(f"{self.name} {type(error).__name__}")
        return None


def app_of(*middleware: Middleware) -> App:
    app = App(middleware=middleware)

    @app.model("sync")
    def sync(n: int) -> int:
        return 1 // n

    @app.model("async")
    async def asynchronous(n: int) -> int:
        return 1 // n

    @app.model("gen")
    def gen(n: int) -> Iterator[int]:
        yield 1 // n

    @app.model("agen")
    async def agen(n: int) -> AsyncIterator[int]:
        yield 1 // n

    return app


KINDS = ["sync@1", "async@1", "gen@1", "agen@1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_middleware_is_nested_around_every_call(kind: str) -> None:
    said: list[str] = []
    app = app_of(Noting("out", said))
    app.add_middleware(Noting("in", said))
    async with bench(app, kind) as running:
        assert await running.call(n=1) == [100]
        assert said == [
            "out before 1", "in before 1", "in item 1", "out item 10", "in after", "out after",
        ]  # fmt: skip
        said.clear()
        with pytest.raises(EngineError):
            await running.call(n=0)
        assert said == [
            "out before 0", "in before 0", "in ZeroDivisionError", "out ZeroDivisionError",
        ]  # fmt: skip


async def test_middleware_refuses_changes_and_replaces() -> None:
    class Guard(Middleware):
        def before(self, context: Context, inputs: dict[str, Any]) -> None:
            if inputs["n"] > 5:
                raise AppError("PERMISSION_DENIED", "too much")
            inputs["n"] += 0

        async def on_error(self, context: Context, error: BaseException) -> BaseException | None:
            return AppError("ABORTED", "was replaced")

    said: list[str] = []
    async with bench(app_of(Noting("out", said), Guard()), "async@1") as running:
        with pytest.raises(FunctionError, match="too much"):
            await running.call(n=6)
        assert said == ["out before 6", "out AppError"]  # Guard did not let it in.
        with pytest.raises(FunctionError, match="was replaced"):
            await running.call(n=0)


async def test_middleware_hears_of_a_cancellation() -> None:
    said: list[str] = []
    began = asyncio.Event()
    app = App(middleware=[Noting("m", said)])

    @app.model("call")
    async def call(n: int) -> int:
        began.set()
        await asyncio.Event().wait()
        return n

    async with bench(app) as running:
        freed = asyncio.Event()
        running.engine.on_room = freed.set
        job = running.submit(n=1)
        await began.wait()
        running.engine.abort(job)
        await freed.wait()
    assert said == ["m before 1", "m CancelledError"]


async def test_logging_metrics_and_traces_are_middleware(
    capfd: pytest.CaptureFixture[str],
) -> None:
    registry = CollectorRegistry()
    spans: list[Any] = []

    class Tracing:
        def begin(self, name: str, parent: str, attributes: Any) -> Any:
            spans.append([name, parent])
            return self

        def end(self, error: str, attributes: Any) -> None:
            spans[-1] += [error, attributes]

    app = app_of(Logging(), Metrics(registry), Traces(Tracing()))  # type: ignore[arg-type]
    Metrics(registry)  # Another app in the process may have it too.
    async with bench(app, "gen@1") as running:
        await running.call({"traceparent": "00-a"}, n=1)
        with pytest.raises(EngineError):
            await running.call(n=0)
    read = registry.get_sample_value
    model = {"model": "gen@1"}
    assert read("millstream_function_calls_total", {**model, "outcome": "ok"}) == 1
    assert read("millstream_function_calls_total", {**model, "outcome": "ZeroDivisionError"}) == 1
    assert read("millstream_function_items_total", model) == 1
    assert read("millstream_function_at_work", model) == 0
    assert read("millstream_function_seconds_count", model) == 2
    assert spans == [
        ["function gen@1", "00-a", "", {"millstream.items": 1}],
        ["function gen@1", "", "ZeroDivisionError", {"millstream.items": 0}],
    ]
    said = capfd.readouterr().out
    assert "r1" in said
    assert "outcome" in said


# ---- dependencies -------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
async def test_dependencies_are_given_once_a_call_and_cleaned_up(*, fails: bool) -> None:
    said: list[str] = []

    def token(context: Context) -> str:
        assert threading.current_thread() is not threading.main_thread()
        said.append("token")
        return context.metadata["token"]

    async def user(token: str = Depends(token)) -> str:
        return f"user of {token}"

    def database() -> Iterator[str]:
        assert threading.current_thread() is not threading.main_thread()
        try:
            yield "database"
        except ZeroDivisionError:
            said.append("rolled back")
            raise
        finally:
            said.append("closed database")

    async def session(database: Annotated[str, Depends(database)]) -> AsyncIterator[str]:
        yield f"session of {database}"
        said.append("committed")

    app = App()

    @app.model("call")
    def call(
        n: int,
        user: Annotated[str, Depends(user)],
        token: str = Depends(token),
        session: str = Depends(session),
    ) -> list[str]:
        return [user, token, session, str(1 // n)]

    assert [f.name for f in app.models["call@1"].signature.inputs.fields] == ["n"]
    async with bench(app) as running:
        job = {"metadata": (("token", "t"),)}
        if fails:
            with pytest.raises(EngineError):
                await running.call(job, n=0)
            assert said == ["token", "rolled back", "closed database"]
        else:
            assert await running.call(job, n=1) == [["user of t", "t", "session of database", "1"]]
            assert said == ["token", "committed", "closed database"]


async def test_a_dependency_refuses_a_call() -> None:
    def nobody(context: Context) -> str:
        context.abort("UNAUTHENTICATED", "who are you?")

    app = App()

    @app.model("call")
    async def call(user: str = Depends(nobody)) -> str:
        return user

    async with bench(app) as running:
        with pytest.raises(FunctionError, match="who are you") as raised:
            await running.call()
        assert raised.value.code == 16


async def test_a_cancelled_call_cleans_its_dependencies_up() -> None:
    began, closed = asyncio.Event(), threading.Event()

    def resource() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    app = App()

    @app.model("call")
    async def call(resource: int = Depends(resource)) -> int:
        began.set()
        await asyncio.Event().wait()
        return resource

    async with bench(app) as running:
        freed = asyncio.Event()
        running.engine.on_room = freed.set
        job = running.submit()
        await began.wait()
        running.engine.abort(job)
        await freed.wait()
        assert closed.is_set()


def test_a_dependency_takes_nothing_of_the_client() -> None:
    def user(name: str) -> str:
        return name

    def call(user: str = Depends(user)) -> str:
        return user

    with pytest.raises(TypeError, match=r"dependency .*user, parameter 'name': a dependency takes"):
        App().model("call")(call)
