"""Errors of functions: what reaches the client, what stays in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpclib
import pytest
from google.rpc import error_details_pb2, status_pb2

from millstream import App, AppError
from shared import wire
from shared.errors import DeadlineExceeded, EngineError, FunctionError, InvalidRequest
from shared.wire import Sampling
from tests.unit.app_bench import bench
from workers.engines.base import Job


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
