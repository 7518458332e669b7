"""Calls of functions: kinds, context, errors, cancellation, slots."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpclib
import pytest
from google.rpc import error_details_pb2, status_pb2

from millstream import App, AppError, Context
from shared import wire
from shared.errors import (
    DeadlineExceeded,
    EngineError,
    FunctionError,
    InvalidRequest,
)
from shared.wire import Sampling
from tests.unit.app_bench import Bench, bench
from workers.app.running import RunningApp
from workers.engines.base import Job, ModelLoadError


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

    with pytest.raises(ModelLoadError, match="a@1 did not load: OSError: no weights"):
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
    with pytest.raises(ModelLoadError, match="RuntimeError: no database"):
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


# ---- errors -------------------------------------------------------------------------------------


def failing(error: Callable[[], BaseException]) -> App:
    """An app whose functions fail: sync, async, and both generators after one item."""
    app = App()

    @app.model("sync")
    def sync() -> int:
        raise error()

    @app.model("async")
    async def asynchronous() -> int:
        raise error()

    @app.model("gen")
    def gen() -> Iterator[int]:
        yield 1
        raise error()

    @app.model("agen")
    async def agen() -> AsyncIterator[int]:
        yield 1
        raise error()

    return app


KINDS = ["sync@1", "async@1", "gen@1", "agen@1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deliberate_error_reaches_the_client_with_status_and_details(kind: str) -> None:
    detail = error_details_pb2.ErrorInfo(reason="GONE")
    app = failing(lambda: AppError("NOT_FOUND", "no such user", [detail], field="user"))
    async with bench(app, kind) as running:
        with pytest.raises(FunctionError, match="no such user") as raised:
            await running.call()
    error = raised.value
    assert (error.code, error.field, error.http_status) == (5, "user", 404)
    status = status_pb2.Status.FromString(error.status)
    unpacked = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(unpacked)
    assert (status.code, status.message, unpacked.reason) == (5, "no such user", "GONE")


async def test_errors_of_grpc_libraries_and_our_own_pass() -> None:
    detail = error_details_pb2.ErrorInfo(reason="X")
    grpc_error = grpclib.GRPCError(grpclib.const.Status.ABORTED, "again", [detail])
    async with bench(failing(lambda: grpc_error), "sync@1") as running:
        with pytest.raises(FunctionError, match="again") as raised:
            await running.call()
        assert raised.value.code == 10
    import grpc

    class Refused(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> Any:
            return grpc.StatusCode.PERMISSION_DENIED

        def details(self) -> str:
            return "not you"

    async with bench(failing(Refused), "async@1") as running:
        with pytest.raises(FunctionError, match="not you") as raised:
            await running.call()
        assert raised.value.code == 7
    async with bench(failing(lambda: DeadlineExceeded("late")), "gen@1") as running:
        with pytest.raises(DeadlineExceeded, match="late"):
            await running.call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [KeyError, asyncio.CancelledError, SystemExit, StopIteration, GeneratorExit, TimeoutError],
)  # fmt: skip
async def test_any_other_error_is_internal_and_logged(
    kind: str, error: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    async with bench(failing(lambda: error("secret")), kind) as running:
        with pytest.raises(EngineError) as raised:
            await running.call()
        assert "see the worker's log for request r1" in raised.value.message
        assert "secret" not in raised.value.message
        with pytest.raises(EngineError):  # Nothing is dead.
            await running.call()
    said = capfd.readouterr().out
    assert "function_failed" in said
    assert "r1" in said
    assert "secret" in said


async def test_an_interrupt_of_the_functions_own_ends_nothing_else() -> None:
    async with bench(failing(lambda: KeyboardInterrupt("mine")), "sync@1") as running:
        for _ in range(2):
            with pytest.raises(EngineError):
                await running.call()


async def test_a_result_has_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.app.binding.MOST_RESULT", 1000)
    app = App()

    @app.model("zeros")
    def zeros(n: int) -> bytes:
        return bytes(n)

    async with bench(app) as running:
        assert await running.call(n=900) == [bytes(900)]
        with pytest.raises(EngineError):
            await running.call(n=1000)


async def test_items_before_an_error_arrive() -> None:
    async with bench(failing(ValueError), "gen@1") as running:
        job = running.submit()
        await running.until(lambda: job in running.ended)
        assert running.items(job) == [1]


def test_an_error_status_must_be_one() -> None:
    assert AppError(5).code == 5
    for status in ("OK", 0, "NOPE", 99):
        with pytest.raises(ValueError, match="no error status"):
            AppError(status)


async def test_a_long_error_fits_into_a_trailer() -> None:
    app = failing(lambda: AppError(3, "x" * 9999, [error_details_pb2.ErrorInfo(reason="y" * 9999)]))
    async with bench(app, "sync@1") as running:
        with pytest.raises(FunctionError) as raised:
            await running.call()
        assert len(raised.value.message) == 2048
        assert len(raised.value.status) < 4096


class Halfway(AppError):
    def __init__(self) -> None:
        """It never calls the base's."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_malformed_error_ends_its_call_all_the_same(kind: str) -> None:
    odd: Any = None
    for made, wanted in [
        (lambda: AppError(5, 404), "404"),  # type: ignore[arg-type]
        (lambda: AppError(5, odd), ""),
        (lambda: AppError(5, "a\ud800"), "a?"),
        (lambda: AppError(5, "x", field="\ud800"), "x"),
        (lambda: AppError(5, "x", field=7), "x"),  # type: ignore[arg-type]
        (lambda: AppError(5, "x", ["no message"]), None),  # type: ignore[list-item]
        (lambda: AppError(5, "x", retry_after="soon"), None),  # type: ignore[arg-type]
        (Halfway, None),
        (lambda: FunctionError("a\ud800", code=5), "a?"),
        (lambda: grpclib.GRPCError(grpclib.const.Status.NOT_FOUND, "\ud800"), "?"),
    ]:  # fmt: skip
        async with bench(failing(made), kind) as running:
            with pytest.raises(EngineError if wanted is None else FunctionError) as raised:
                await running.call()
        if wanted is not None:
            assert raised.value.message == wanted
        encoded = wire.encode(
            wire.Failed(1, 1, raised.value.kind, raised.value.message, raised.value.field)
        )
        wire.decode(encoded)


async def test_a_malformed_call_and_one_of_a_language_model_are_refused() -> None:
    app = App()

    @app.model("call")
    def call(x: int) -> int:
        return x

    async with bench(app) as running:
        for job in ({"call": b"\x08"}, {"call": b"\n\1x"}, {"call": None, "prompt": "hi"}):
            given = {"prompt": None} | job
            running.engine.submit(
                Job(90, given.pop("prompt"), None, None, Sampling(), **given)  # type: ignore[arg-type]
            )
            await running.until(lambda: 90 in running.ended)
            assert isinstance(running.ended.pop(90), InvalidRequest)


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
