"""Batched functions on a real engine and loop: which calls make a batch, and what is around it."""
# mypy: disable-error-code="valid-type,name-defined,misc,syntax,type-arg"
# mypy: disable-error-code="index,attr-defined,no-any-return"
# ruff: noqa: F821, UP037

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from millstream import App, AppError, Context, Depends, Middleware, Tensor, TorchTensor
from shared.errors import FunctionError
from shared.signature import Scalar, TensorType
from shared.values.tensors import tensor
from tests.unit.app_bench import bench, calls

# ---- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_eight_calls_at_once_are_one_call_of_the_function(kind: str) -> None:
    app = App()
    sizes: list[int] = []

    if kind == "sync":

        @app.model("slow", batch=True)
        def slow(x: list[int]) -> list[int]:
            sizes.append(len(x))
            return [2 * one for one in x]

    else:

        @app.model("slow", batch=True)
        async def slow_async(x: list[int]) -> list[int]:
            sizes.append(len(x))
            await asyncio.sleep(0)
            return [2 * one for one in x]

    async with bench(app) as running:
        assert await calls(running, *({"x": n} for n in range(8))) == [[2 * n] for n in range(8)]
        assert sizes == [8]


async def test_a_lone_call_waits_for_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = SimpleNamespace(monotonic=lambda: 100.0)  # Calls take no time on any machine.
    for module in ("batched", "items"):
        monkeypatch.setattr(f"workers.app.{module}.time", stopped)
    loop, waits = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def noting(when: float, *given: Any, **named: Any) -> asyncio.TimerHandle:
        waits.append(when - loop.time())
        return call_at(when, *given, **named)

    monkeypatch.setattr(loop, "call_at", noting)
    app = App()

    @app.model("quick", batch=True)
    def quick(x: list[int]) -> list[int]:
        return x

    async with bench(app) as running:
        for n in range(30):
            assert await running.call(x=n) == [n]
    assert not [wait for wait in waits if 0 < wait < 5], "longer ones are the bench's own limit"


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
