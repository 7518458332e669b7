from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from grpclib.const import Status
from prometheus_client import CollectorRegistry

from millstream import CallLogging, CallMetrics, CallTraces, Client, ClientMiddleware, SyncClient
from millstream.answers import Delta
from millstream.middleware import Call
from shared.errors import InternalError, InvalidRequest, MillstreamError, UnknownModel
from shared.signature import Record, Scalar, Signature
from tests.unit import fake_functions
from tests.unit.fake_functions import Functions, refuse
from tests.unit.fake_gateway import FakeGateway, count_to_three, for_ever


def function(name: str, *, streaming: bool = False) -> Signature:
    return Signature(name, "1", Record("In", ()), Scalar("string"), streaming)


async def one(_request: Any, call: fake_functions.Call) -> None:
    await call.answer(result="x")


async def two(_request: Any, call: fake_functions.Call) -> None:
    for index in range(2):
        await call.answer(index=index, result=f"x{index}")


async def endless(_request: Any, call: fake_functions.Call) -> None:
    await call.answer(index=0, result="x")
    await asyncio.Event().wait()


@pytest.fixture
def gateway() -> Functions:
    gateway = Functions()
    gateway.serve(function("one"), one)
    gateway.serve(function("two", streaming=True), two)
    gateway.serve(function("endless", streaming=True), endless)
    gateway.serve(function("broken"), refuse(Status.INVALID_ARGUMENT, "no"))
    return gateway


class Noting(ClientMiddleware):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    async def before(self, call: Call) -> None:
        self.seen.append(f"{self.name} before {call.name} {call.streaming}")
        call.metadata[f"x-{self.name}"] = "was here"

    def on_item(self, call: Call, item: Any) -> Any:
        return f"{item}{self.name}"

    async def after(self, call: Call) -> None:
        self.seen.append(f"{self.name} after {call.items}")

    async def on_error(self, call: Call, error: BaseException) -> BaseException | None:
        self.seen.append(f"{self.name} {type(error).__name__}")
        return None


class Refusing:
    def before(self, call: Call) -> None:
        raise InvalidRequest("not today")


class Replacing:
    def on_error(self, call: Call, error: BaseException) -> BaseException:
        return InternalError("replaced")


class FailingAfter:
    def after(self, call: Call) -> None:
        raise InternalError("after")


async def test_around_predict_and_stream(gateway: Functions) -> None:
    seen: list[str] = []
    around = [Noting("a", seen), Noting("b", seen)]
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        assert await client.predict("one") == "xba"
        assert [item async for item in client.stream("two")] == ["x0ba", "x1ba"]
    assert seen == [
        "a before one False", "b before one False", "b after 1", "a after 1",
        "a before two True", "b before two True", "b after 2", "a after 2",
    ]  # fmt: skip
    assert all(call["x-a"] == call["x-b"] == "was here" for call in gateway.calls)


async def test_who_refuses_is_told_to_those_entered(gateway: Functions) -> None:
    seen: list[str] = []
    around = [Noting("a", seen), Refusing(), Noting("b", seen)]
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        with pytest.raises(InvalidRequest, match="not today"):
            await client.predict("one")
        with pytest.raises(InvalidRequest, match="not today"):
            await anext(client.stream("two"))
    assert seen[1] == seen[3] == "a InvalidRequest"
    assert not gateway.calls


@pytest.mark.parametrize(
    ("inner", "name", "error"),
    [(Replacing(), "broken", "replaced"), (FailingAfter(), "one", "after")],
)
async def test_errors_of_hooks(gateway: Functions, inner: object, name: str, error: str) -> None:
    seen: list[str] = []
    around = [Noting("a", seen), inner]
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        with pytest.raises(InternalError, match=error):
            await client.predict(name)
    assert seen[-1] == "a InternalError"


async def test_a_stream_that_is_left_and_one_that_is_cancelled(gateway: Functions) -> None:
    seen: list[str] = []
    around = [Noting("a", seen), Replacing()]
    async with gateway.serving() as target, Client(target, middleware=around[:1]) as client:
        async with client.stream("endless") as items:
            assert await anext(items) == "xa"
        assert seen[-1] == "a CancelledError"
        await asyncio.wait_for(gateway.cancelled.wait(), 5)
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        items = client.stream("endless")
        await anext(items)
        task = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_leaving_without_a_word_still_cancels(gateway: Functions) -> None:
    seen: list[str] = []
    around = [Noting("a", seen)]
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        async for _item in client.stream("endless"):
            break
        await asyncio.wait_for(gateway.cancelled.wait(), 5)
    assert seen[-1] == "a CancelledError"


class Louder:
    def __init__(self) -> None:
        self.ids: list[str] = []

    def before(self, call: Call) -> None:
        call.metadata["x-user"] = "me"

    def on_item(self, call: Call, item: Delta) -> Delta:
        self.ids.append(call.request_id)
        return item


async def test_around_generate() -> None:
    gateway, louder = FakeGateway(count_to_three), Louder()
    async with gateway.serving() as target, Client(target, middleware=[louder]) as client:
        answer = client.generate("x")
        assert [delta.text async for delta in answer] == [" 0", " 1 2"]
        assert answer.finished is not None
        assert (await client.complete("x")).text == " 0 1 2"
    assert louder.ids == ["r1"] * 4
    assert [one["x-user"] for one in gateway.metadata] == ["me", "me"]


async def test_leaving_a_generation_cancels_it() -> None:
    gateway = FakeGateway(for_ever)
    async with gateway.serving() as target, Client(target, middleware=[Louder()]) as client:
        async for _delta in client.generate("x"):
            break
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


async def test_the_blocking_client(gateway: Functions) -> None:
    def calls(target: str) -> tuple[Any, list[Any]]:
        with SyncClient(target, middleware=[Noting("a", [])]) as client:
            return client.predict("one"), list(client.function("two").stream())

    async with gateway.serving() as target:
        assert await asyncio.to_thread(calls, target) == ("xa", ["x0a", "x1a"])


async def test_logging_and_metrics(gateway: Functions) -> None:
    registry = CollectorRegistry()
    CallMetrics(registry)  # Several clients may share a registry.
    around = [CallLogging(), CallMetrics(registry)]
    with structlog.testing.capture_logs() as lines:
        async with gateway.serving() as target, Client(target, middleware=around) as client:
            await client.function("one", request_id="r7").predict()
            assert len([item async for item in client.stream("two")]) == 2
            with pytest.raises(UnknownModel):
                await client.predict("nobody")
    told = [(one["name"], one["outcome"], one["items"]) for one in lines]
    assert told == [("one", "ok", 1), ("two", "ok", 2), ("nobody", "UnknownModel", 0)]
    assert lines[0]["request_id"] == "r7"

    def value(sample: str, /, **labels: str) -> float | None:
        return registry.get_sample_value(f"millstream_client_{sample}", labels)

    assert value("calls_total", name="one", outcome="ok") == 1
    assert value("calls_total", name="nobody", outcome="UnknownModel") == 1
    assert value("items_total", name="two") == 2
    assert value("seconds_count", name="two") == 1


async def test_traces_send_the_current_traceparent(gateway: Functions) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(7, 9, is_remote=False, trace_flags=trace.TraceFlags(1))
    async with gateway.serving() as target, Client(target, middleware=[CallTraces()]) as client:
        await client.predict("one")
        with trace.use_span(trace.NonRecordingSpan(context)):
            await client.predict("one")
            assert len([item async for item in client.stream("two")]) == 2
    parents = [call.get("traceparent") for call in gateway.calls]
    assert parents == [None, *[f"00-{7:032x}-{9:016x}-01"] * 2]


async def test_what_was_raised_keeps_its_class(gateway: Functions) -> None:
    around = [CallLogging()]
    async with gateway.serving() as target, Client(target, middleware=around) as client:
        with pytest.raises(MillstreamError, match="no"):
            await client.predict("broken")
