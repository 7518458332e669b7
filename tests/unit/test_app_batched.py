"""Batched functions on a real engine and loop: batches, failures and cancellation item by item."""
# mypy: disable-error-code="valid-type,name-defined,misc,syntax,type-arg"
# mypy: disable-error-code="index,attr-defined,no-any-return"
# ruff: noqa: F821, UP037

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from millstream import END, App, AppError, Context, Depends, End, Middleware, Tensor, TorchTensor
from shared.errors import DeadlineExceeded, EngineError, FunctionError, InvalidRequest, Overloaded
from shared.signature import Scalar, TensorType
from shared.values.tensors import tensor
from tests.unit.app_bench import Bench, bench


async def calls(running: Bench, *inputs: dict[str, Any]) -> list[Any]:
    """Calls at once: each one's items, or its error."""
    jobs = [running.submit(**one) for one in inputs]
    await running.until(lambda: all(job in running.ended for job in jobs))
    return [running.ended[job] or running.items(job) for job in jobs]


# ---- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_eight_calls_at_once_take_the_time_of_one(kind: str) -> None:
    app = App()
    sizes: list[int] = []

    if kind == "sync":

        @app.model("slow", batch=True)
        def slow(x: list[int]) -> list[int]:
            sizes.append(len(x))
            time.sleep(0.3)
            return [2 * one for one in x]

    else:

        @app.model("slow", batch=True)
        async def slow_async(x: list[int]) -> list[int]:
            sizes.append(len(x))
            await asyncio.sleep(0.3)
            return [2 * one for one in x]

    async with bench(app) as running:
        started = time.monotonic()
        assert await calls(running, *({"x": n} for n in range(8))) == [[2 * n] for n in range(8)]
        assert time.monotonic() - started < 0.55
        assert sizes == [8]


async def test_a_lone_call_waits_for_no_window() -> None:
    app = App()

    @app.model("quick", batch=True)
    def quick(x: list[int]) -> list[int]:
        return x

    async with bench(app) as running:
        took = []
        for n in range(30):
            started = time.monotonic()
            assert await running.call(x=n) == [n]
            took.append(time.monotonic() - started)
        assert sorted(took)[15] < 0.008


async def test_a_busy_device_takes_all_that_came_meanwhile() -> None:
    app = App()
    sizes: list[int] = []
    go, begun = threading.Event(), threading.Event()

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int]:
        sizes.append(len(x))
        begun.set()
        go.wait(10)
        return x

    async with bench(app) as running:
        first = running.submit(x=0)
        await asyncio.to_thread(begun.wait, 10)
        assert running.engine.room() == 0, "the next batch is far away"
        assert running.engine.observe().running == 1
        rest = [running.submit(x=n) for n in range(1, 6)]
        assert running.engine.observe().waiting == 5
        go.set()
        await running.until(lambda: set(running.ended) == {first, *rest})
        assert sizes == [1, 5]
        assert running.engine.room()


async def test_max_batch_is_held() -> None:
    app = App()
    sizes: list[int] = []

    @app.model("f", batch=True, max_batch=3)
    async def f(x: list[int]) -> list[int]:
        sizes.append(len(x))
        return x

    async with bench(app) as running:
        assert running.engine.card.max_batch == 3
        assert await calls(running, *({"x": n} for n in range(7))) == [[n] for n in range(7)]
        assert sizes == [3, 3, 1]


async def test_arrays_are_stacked_on_axis_0() -> None:
    app = App()
    seen: list[Any] = []

    @app.model("net", batch=True)
    def net(
        image: Tensor["float32", "batch", 2, "w"], other: TorchTensor["int64", "batch"]
    ) -> TorchTensor["float32", "n", 2]:
        seen.append((image.shape, other.shape))
        return torch.from_numpy(image).sum(dim=2) + other[:, None]

    inputs = app.models["net@1"].signature.inputs.fields
    assert [field.type for field in inputs] == [
        TensorType("float32", (2, "w")),
        TensorType("int64", ()),
    ]
    assert app.models["net@1"].signature.output == TensorType("float32", (2,))
    async with bench(app) as running:
        given = [
            {"image": np.full((2, 3), n, "float32"), "other": np.array(n, "int64")}
            for n in range(4)
        ]
        got = await calls(running, *given)
        assert got == [[tensor(np.full(2, 4 * n, "float32"))] for n in range(4)]
        assert seen == [((4, 2, 3), (4,))]


async def test_arrays_of_other_shapes_are_in_other_batches() -> None:
    app = App()
    shapes: list[Any] = []

    @app.model("net", batch=True)
    def net(x: Tensor["float32", "batch", "length"]) -> list[float]:
        shapes.append(x.shape)
        return x.sum(axis=1)

    async with bench(app) as running:
        got = await calls(running, *({"x": np.ones(n, "float32")} for n in (3, 5, 3, 5)))
        assert got == [[3.0], [5.0], [3.0], [5.0]]
        assert shapes == [(2, 3), (2, 5)]


async def test_lists_optional_items_arrays_unstacked_and_contexts() -> None:
    app = App()

    @app.model("f", batch=True)
    def f(
        name: list[str],
        scale: list[float | None],
        row: list[Tensor["float32", "length"]],
        contexts: list[Context],
    ) -> list[str | AppError]:
        ids = [context.request_id for context in contexts]
        return [f"{a} {b} {c.shape} {d}" for a, b, c, d in zip(name, scale, row, ids, strict=True)]

    assert app.models["f@1"].signature.output == Scalar("string")
    async with bench(app) as running:
        assert await calls(
            running,
            {"name": "a", "row": np.ones(1, "float32")},
            {"name": "b", "scale": 0.5, "row": np.ones(2, "float32")},
        ) == [["a None (1,) r1"], ["b 0.5 (2,) r2"]]


# ---- failure is per item ------------------------------------------------------------------------


async def test_an_exception_in_an_items_place_fails_it_alone() -> None:
    app = App()

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int | Exception]:
        odd: dict[int, Exception] = {1: AppError("NOT_FOUND", "no such"), 2: KeyError("secret")}
        return [odd.get(one, one) for one in x]

    async with bench(app) as running:
        fine, missing, failed, last = await calls(running, *({"x": n} for n in range(4)))
        assert (fine, last) == ([0], [3])
        assert isinstance(missing, FunctionError) and missing.grpc_status == 5
        assert isinstance(failed, EngineError) and "secret" not in str(failed)


async def test_a_result_that_breaks_the_contract_fails_its_item_alone() -> None:
    app = App()

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int]:
        return [one if one else "zero" for one in x]

    async with bench(app) as running:
        broken, fine = await calls(running, {"x": 0}, {"x": 1})
        assert isinstance(broken, EngineError) and "contract" in str(broken)
        assert fine == [1]


async def test_what_is_raised_fails_every_call_of_what_may_run_once_only() -> None:
    app = App()
    sizes: list[int] = []

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int]:
        sizes.append(len(x))
        if 2 in x:
            raise AppError("NOT_FOUND", "meant for one of them")
        return x

    async with bench(app) as running:
        errors = await calls(running, *({"x": n} for n in range(4)))
        assert sizes == [4]
        for error in errors:
            assert isinstance(error, EngineError) and "AppError" in str(error)
            assert "meant" not in str(error)
        alone = await calls(running, {"x": 2})
        assert isinstance(alone[0], FunctionError) and alone[0].message == "meant for one of them"
        assert await calls(running, {"x": 7}) == [[7]]


@pytest.mark.parametrize("raised", [ValueError("x"), asyncio.CancelledError(), SystemExit(1)])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_one_bad_item_fails_alone_where_the_rest_may_run_again(
    kind: str, raised: BaseException
) -> None:
    app = App()
    sizes: list[int] = []

    def work(x: list[int]) -> list[int]:
        sizes.append(len(x))
        if 5 in x:
            raise raised
        return x

    if kind == "sync":

        @app.model("f", batch=True, idempotent=True)
        def f(x: list[int]) -> list[int]:
            return work(x)

    else:

        @app.model("f", batch=True, idempotent=True)
        async def g(x: list[int]) -> list[int]:
            return work(x)

    async with bench(app) as running:
        got = await calls(running, *({"x": n} for n in range(8)))
        assert isinstance(got[5], EngineError)
        assert got[:5] + got[6:] == [[n] for n in (0, 1, 2, 3, 4, 6, 7)]
        assert sizes == [8, 4, 4, 2, 1, 1, 2]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_cancelled_error_inside_does_not_stop_the_engine(kind: str) -> None:
    app = App()

    if kind == "sync":

        @app.model("f", batch=True)
        def f(x: list[int]) -> list[int]:
            if 0 in x:
                raise asyncio.CancelledError
            return x

    else:

        @app.model("f", batch=True)
        async def g(x: list[int]) -> list[int]:
            if 0 in x:
                raise asyncio.CancelledError
            return x

    async with bench(app) as running:
        for _ in range(3):
            assert isinstance((await calls(running, {"x": 0}))[0], EngineError)
        assert await calls(running, {"x": 1}) == [[1]]


@pytest.mark.parametrize(
    ("result", "said"),
    [([1], "want 2 items"), ("ab", "got str"), (None, "got NoneType"), (np.array(1), "got 0")],
)
async def test_a_result_for_another_number_of_calls(result: Any, said: str) -> None:
    app = App()

    @app.model("f", batch=True, idempotent=True)
    def f(x: list[int]) -> list[int]:
        return result

    async with bench(app) as running:
        for error in await calls(running, {"x": 0}, {"x": 1}):
            assert isinstance(error, EngineError) and said in str(error)


async def test_what_cannot_be_read_never_joins_a_batch() -> None:
    app = App()
    seen: list[Any] = []

    @app.model("f", batch=True)
    def f(x: list[str]) -> list[str]:
        seen.append(x)
        return x

    async with bench(app) as running:
        bad = running.submit({"call": b"\x0a\x02\xff\xff"})
        fine = running.submit(x="a")
        await running.until(lambda: {bad, fine} <= set(running.ended))
        assert isinstance(running.ended[bad], InvalidRequest)
        assert running.items(fine) == ["a"] and seen == [["a"]]


# ---- cancellation and deadlines -----------------------------------------------------------------


async def test_what_is_cancelled_or_late_while_it_waits_never_runs() -> None:
    app = App()
    seen: list[list[int]] = []
    go, begun = threading.Event(), threading.Event()

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int]:
        seen.append(x)
        begun.set()
        go.wait(10)
        return x

    left = [5.0]
    async with bench(app) as running:
        first = running.submit(x=0)
        await asyncio.to_thread(begun.wait, 10)
        cancelled = running.submit(x=1)
        late = running.submit({"remaining": lambda: left[0]}, x=2)
        fine = running.submit(x=3)
        running.engine.abort(cancelled)
        left[0] = -1.0
        go.set()
        await running.until(lambda: {first, late, fine} <= set(running.ended))
        assert seen == [[0], [3]]
        assert isinstance(running.ended[late], DeadlineExceeded)
        assert cancelled not in running.heard and cancelled not in running.ended


async def test_a_cancelled_call_in_a_batch_says_nothing_more() -> None:
    app = App()
    go = threading.Event()
    begun = threading.Event()

    @app.model("f", batch=True)
    def f(x: list[int]) -> list[int]:
        begun.set()
        go.wait(10)
        return x

    async with bench(app) as running:
        one, other = running.submit(x=1), running.submit(x=2)
        await asyncio.to_thread(begun.wait, 10)
        running.engine.abort(one)
        go.set()
        await running.until(lambda: other in running.ended)
        assert one not in running.heard and running.items(other) == [2]


async def test_an_async_batch_that_nobody_wants_is_cancelled() -> None:
    app = App()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @app.model("f", batch=True)
    async def f(x: list[int]) -> list[int]:
        begun.set()
        try:
            await asyncio.sleep(60 * x[0])
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return x

    async with bench(app) as running:
        one, other = running.submit(x=1), running.submit(x=1)
        await begun.wait()
        running.engine.abort(one)
        await asyncio.sleep(0)
        assert not cancelled.is_set()
        running.engine.abort(other)
        await cancelled.wait()
        assert await running.call(x=0) == [0]


# ---- streams ------------------------------------------------------------------------------------


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


# ---- around it ----------------------------------------------------------------------------------


async def test_middleware_and_dependencies_run_for_each_call() -> None:
    seen: list[str] = []

    class Refusing(Middleware):
        def before(self, context: Context, inputs: dict[str, Any]) -> None:
            if inputs["x"] == 1:
                raise AppError("PERMISSION_DENIED", "not you")

        def on_item(self, context: Context, item: Any) -> Any:
            return item + 100

        def after(self, context: Context) -> None:
            seen.append(context.request_id)

    app = App(middleware=[Refusing()])

    async def user(context: Context) -> str:
        return context.metadata["user"]

    @app.model("f", batch=True)
    def f(x: list[int], users: Annotated[list[str], Depends(user)]) -> list[int]:
        return [one + len(who) for one, who in zip(x, users, strict=True)]

    async with bench(app) as running:
        jobs = [
            running.submit({"metadata": (("user", "u" * n),)}, x=n) for n in range(3)
        ]  # fmt: skip
        await running.until(lambda: all(job in running.ended for job in jobs))
        assert isinstance(running.ended[jobs[1]], FunctionError)
        assert [running.items(jobs[0]), running.items(jobs[2])] == [[100], [104]]
        assert sorted(seen) == ["r1", "r3"]


# ---- what is refused when it is decorated -------------------------------------------------------


def test_annotations_are_about_the_batch() -> None:
    app = App()

    def one_item(x: str) -> list[str]: ...  # type: ignore[empty-body]
    def one_result(x: list[str]) -> str: ...  # type: ignore[empty-body]
    def one_context(x: list[str], c: Context) -> list[str]: ...  # type: ignore[empty-body]
    def a_default(x: list[str] = []) -> list[str]: ...  # type: ignore[empty-body]  # noqa: B006
    def no_axis(x: Tensor["float32", 3]) -> list[str]: ...  # type: ignore[empty-body]
    def nothing() -> list[str]: ...  # type: ignore[empty-body]

    for function, said in (
        (one_item, r"parameter 'x'.*write list\[str\]"),
        (one_result, r"the result.*write list\[str\]"),
        (one_context, r"parameter 'c'.*list\[Context\]"),
        (a_default, r"parameter 'x'.*list\[T \| None\]"),
        (no_axis, r'parameter \'x\'.*Tensor\["float32", "batch"'),
        (nothing, "at least one parameter"),
    ):
        with pytest.raises(TypeError, match=said):
            app.model("f", batch=True)(function)

    def fine(x: list[str]) -> list[str]:
        return x

    for options in ({"concurrency": 2}, {"max_batch": 0}, {"target_ms": 0.0}):
        with pytest.raises(TypeError):
            app.model("f", batch=True, **options)(fine)
    with pytest.raises(TypeError, match="batch=True only"):
        app.model("f", target_ms=5)(fine)
