"""Batched functions: what fails, is cancelled or comes late does so item by item."""
# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from millstream import App, AppError
from shared.errors import DeadlineExceeded, EngineError, FunctionError, InvalidRequest
from tests.unit.app_bench import bench, calls

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
