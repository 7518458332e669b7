from __future__ import annotations

import asyncio
import enum
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy
import pydantic
import pytest
import torch
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.const import Status

from millstream import Client, Media, SyncClient, plain, reflected
from millstream.v1 import inference_pb2 as pb
from shared.errors import (
    DeadlineExceeded,
    FunctionError,
    InternalError,
    InvalidRequest,
    Unavailable,
    UnknownModel,
    Unsupported,
)
from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
    Signature,
    TensorType,
    Type,
)
from shared.values import Tensor
from tests.unit.fake_functions import Call, Functions, refuse
from workers.app.media import Image

TEXT = Scalar("string")
COLOURS = EnumType("Colour", ("RED", "BLUE"))
POINT = Record("Point", (Field("x", 1, Scalar("double")), Field("label", 2, TEXT, False)))


def signature(
    name: str,
    inputs: dict[str, Type] | None = None,
    output: Type | None = TEXT,
    *,
    streaming: bool = False,
) -> Signature:
    fields = (
        Field(one, n, type_, False) for n, (one, type_) in enumerate((inputs or {}).items(), 1)
    )
    return Signature(name, "1", Record("In", tuple(fields)), output, streaming)


EVERYTHING: dict[str, Type] = {
    "text": TEXT,
    "number": Scalar("int64"),
    "ratio": Scalar("double"),
    "flag": Scalar("bool"),
    "raw": Scalar("bytes"),
    "when": Scalar("timestamp"),
    "free": Scalar("json"),
    "colour": COLOURS,
    "point": POINT,
    "points": ListType(POINT),
    "scores": MapType(Scalar("double")),
    "array": TensorType("float32", ("n", 2)),
    "picture": MediaType("image"),
    "grid": ListType(ListType(Scalar("int64"))),
}
ALL = Record("All", tuple(Field(n, i, t, False) for i, (n, t) in enumerate(EVERYTHING.items(), 1)))
MIRROR = signature("mirror", EVERYTHING, ALL)
GREET = signature("greet", {"who": TEXT})
COUNT = signature("count", {"to": Scalar("int64")}, Scalar("int64"), streaming=True)


class Colour(enum.Enum):
    RED = "#f00"
    BLUE = "#00f"


@dataclass
class Point:
    x: float
    label: str | None = None


class Dot(pydantic.BaseModel):
    x: float
    label: str | None = None


@dataclass
class Modelled:
    point: Point
    scores: dict[str, float]
    picture: Image


async def mirror(request: Any, call: Call) -> None:
    answer = call.response()
    for described, value in request.ListFields():
        target = getattr(answer.result, described.name)
        if hasattr(target, "MergeFrom"):
            target.MergeFrom(value)
        else:
            setattr(answer.result, described.name, value)
    await call.stream.send_message(answer)


async def greet(request: Any, call: Call) -> None:
    await call.answer(result=f"hello {request.who}")


async def count(request: Any, call: Call) -> None:
    for index in range(request.to):
        await call.answer(result=index * index, index=index)


@pytest.fixture
def functions() -> Functions:
    served = Functions()
    served.serve(MIRROR, mirror)
    served.serve(GREET, greet)
    served.serve(COUNT, count)
    return served


@pytest.fixture
async def client(functions: Functions) -> AsyncIterator[Client]:
    async with functions.serving() as target, Client(target) as client:
        yield client


async def test_values_of_every_type_go_in_and_come_out(client: Client) -> None:
    when = datetime(2026, 11, 21, 10, 0, 0, 250000, tzinfo=UTC)
    array = numpy.arange(6, dtype=numpy.float32).reshape(3, 2)
    given = {
        "text": "Grüße",
        "number": -(2**62),
        "ratio": 0.1,
        "flag": False,
        "raw": b"\0\xff",
        "when": when,
        "free": {"a": [1, None, "b"]},
        "colour": "BLUE",
        "point": {"x": 1.5, "label": "here"},
        "points": [{"x": 1.0}, {"x": 2.0, "label": ""}],
        "scores": {"a": 0.5, "b": 0.0},
        "picture": Media("image/png", b"png"),
        "grid": [[1, 2], [], [3]],
    }
    answer = await client.predict("mirror", array=array, **given)
    numpy.testing.assert_array_equal(answer.pop("array"), array)
    assert answer == given


async def test_objects_are_taken_apart(client: Client) -> None:
    answer = await client.predict(
        "mirror", colour=Colour.RED, point=Point(0.5), points=(Point(1.0, "a"),), scores={"z": 1}
    )
    assert answer["colour"] == "RED"
    assert answer["point"] == {"x": 0.5}
    assert answer["points"] == [{"x": 1.0, "label": "a"}]
    assert answer["scores"] == {"z": 1.0}
    modelled = Modelled(point=Point(1.5), scores={"q": 2.0}, picture=Image(b"gif", "image/gif"))
    answer = await client.predict("mirror", **plain.plain(modelled))
    assert (answer["point"], answer["scores"]) == ({"x": 1.5}, {"q": 2.0})
    assert answer["picture"] == Media("image/gif", b"gif")
    answer = await client.predict("mirror", points=[Dot(x=0.5, label="d")])
    assert answer["points"] == [{"x": 0.5, "label": "d"}]


async def test_what_is_not_given_is_not_sent(client: Client) -> None:
    answer = await client.predict("mirror", text=None, number=0)
    assert answer["number"] == 0
    assert not {"text", "flag", "when", "array"} & set(answer)


async def test_torch_tensors_go_in(client: Client) -> None:
    tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()
    answer = await client.predict("mirror", array=tensor)
    assert answer["array"].dtype == numpy.float32
    numpy.testing.assert_array_equal(answer["array"], tensor.numpy())


async def test_without_numpy_an_array_is_its_bytes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_to_array", lambda: None)
    given = Tensor("float32", (1, 2), bytes(8))
    assert (await client.predict("mirror", array=given))["array"] == given


async def test_the_types_are_asked_for_once(client: Client, functions: Functions) -> None:
    answers = await asyncio.gather(*(client.predict("greet", who=str(n)) for n in range(8)))
    assert answers == [f"hello {n}" for n in range(8)]
    assert await client.predict("greet@1", who="you") == "hello you"
    assert await client.predict("greet", who="you") == "hello you"
    assert functions.asked == ["greet", "greet@1"]


async def test_a_stream_yields_items(client: Client) -> None:
    assert [item async for item in client.stream("count", to=5)] == [0, 1, 4, 9, 16]
    assert [item async for item in client.stream("count", to=0)] == []


@pytest.mark.parametrize("indexes", [(0, 2), (1,), (0, 0), (0, 1, 1)])
async def test_a_missing_or_repeated_item_is_an_error(
    client: Client, functions: Functions, indexes: tuple[int, ...]
) -> None:
    async def play(_request: Any, call: Call) -> None:
        for index in indexes:
            await call.answer(result=index, index=index)

    functions.serve(replace(COUNT, name="skip"), play)
    with pytest.raises(InternalError, match=f"item {indexes[-1]} of the stream came"):
        async for _ in client.stream("skip"):
            pass


async def test_a_stream_has_its_requests_name(client: Client, functions: Functions) -> None:
    async def play(_request: Any, call: Call) -> None:
        await call.stream.send_initial_metadata(metadata={"x-request-id": "r-7"})
        await call.answer(result=1, index=0)

    functions.serve(replace(COUNT, name="named"), play)
    items = client.stream("named")
    assert items.request_id == ""
    assert await anext(items) == 1
    assert items.request_id == "r-7"


async def endless(_request: Any, call: Call) -> None:
    index = 0
    while True:
        await call.answer(result=index, index=index)
        await asyncio.sleep(0)
        index += 1


@pytest.mark.parametrize("way", ["with", "aclose", "dropped"])
async def test_leaving_the_loop_cancels(client: Client, functions: Functions, way: str) -> None:
    functions.serve(replace(COUNT, name="endless"), endless)
    items = client.stream("endless")
    if way == "with":
        async with items:
            assert await anext(items) == 0
    else:
        async for item in items:
            assert item == 0
            break
        if way == "aclose":
            await items.aclose()
    del items
    async with asyncio.timeout(5):
        await functions.cancelled.wait()


async def test_streams_that_are_not_read_hold_up_no_other_call(
    client: Client, functions: Functions
) -> None:
    waiting = {str(n) for n in range(20)}
    full = asyncio.Event()

    async def play(request: Any, call: Call) -> None:
        for index in range(1000):
            await call.answer(result="x" * 65536, index=index)
            if index == 14:
                waiting.discard(request.name)
                if not waiting:
                    full.set()

    functions.serve(signature("large", {"name": TEXT}, streaming=True), play)
    streams = [client.stream("large", name=str(n)) for n in range(20)]
    for stream in streams:
        assert len(await anext(stream)) == 65536
    async with asyncio.timeout(20):
        await full.wait()
        assert await client.predict("greet", who="you") == "hello you"
    for stream in streams:
        await stream.cancel()


async def test_a_cancelled_call_is_cancelled_there(client: Client, functions: Functions) -> None:
    begun = asyncio.Event()

    async def play(_request: Any, _call: Call) -> None:
        begun.set()
        await asyncio.Event().wait()

    functions.serve(replace(GREET, name="slow"), play)
    task = asyncio.create_task(client.predict("slow"))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await functions.cancelled.wait()
    with pytest.raises(DeadlineExceeded):
        await client.function("slow", deadline=0.05).predict()


async def test_options_do_not_clash_with_parameters(client: Client, functions: Functions) -> None:
    clashing = signature("clash", dict.fromkeys(("name", "deadline", "self", "request_id"), TEXT))

    async def play(request: Any, call: Call) -> None:
        given = (request.name, request.deadline, request.self, request.request_id)
        await call.answer(result=" ".join(given))

    functions.serve(clashing, play)
    inputs = {"name": "a", "deadline": "b", "self": "c", "request_id": "d"}
    assert await client.predict("clash", **inputs) == "a b c d"
    function = client.function(
        "clash", deadline=5.0, request_id="r-1", priority="batch", metadata={"x-user": "me"}
    )
    assert await function.predict(**inputs) == "a b c d"
    sent = functions.calls[-1]
    assert (sent["x-request-id"], sent["x-priority"], sent["x-user"]) == ("r-1", "batch", "me")
    assert "x-request-id" not in functions.calls[0]
    with pytest.raises(InvalidRequest, match="'urgent' is not one of"):
        client.function("clash", priority="urgent")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"nowhere": 1}, "nowhere"),
        ({"number": "seven"}, "number"),
        ({"colour": "GREEN"}, "colour"),
        ({"points": [{"x": 1.0}, {"x": "a"}]}, "points[1].x"),
        ({"array": "text"}, "array"),
        ({"picture": 7}, "picture"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    client: Client, functions: Functions, inputs: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.predict("mirror", **inputs)
    assert caught.value.field == field
    assert functions.calls == []


async def test_the_wrong_verb_is_refused(client: Client, functions: Functions) -> None:
    with pytest.raises(InvalidRequest, match="count@1 streams: call stream"):
        await client.predict("count", to=1)
    with pytest.raises(InvalidRequest, match="greet@1 does not stream: call predict"):
        await anext(client.stream("greet"))
    with pytest.raises(InvalidRequest, match="'sim' is a language model: call generate"):
        await client.predict("sim")
    with pytest.raises(UnknownModel, match="'nope' is not served here"):
        await client.predict("nope")
    assert functions.calls == []


async def test_what_a_function_raises_keeps_its_code_and_details(
    client: Client, functions: Functions
) -> None:
    detail = StringValue(value="seven")
    ours = ErrorInfo(reason="FunctionError", domain="millstream")
    functions.serve(
        replace(GREET, name="raising"), refuse(Status.NOT_FOUND, "no such user", [ours, detail])
    )
    with pytest.raises(FunctionError, match="no such user") as caught:
        await client.predict("raising")
    assert caught.value.code == 5
    status = RpcStatus.FromString(caught.value.status)
    assert (status.code, status.message) == (5, "no such user")
    (only,) = status.details
    unpacked = StringValue()
    assert only.Unpack(unpacked)
    assert unpacked == detail
    assert len(functions.calls) == 1


async def test_an_error_in_the_middle_comes_after_the_items(
    client: Client, functions: Functions
) -> None:
    async def play(request: Any, call: Call) -> None:
        await count(request, call)
        raise Unavailable("every worker is gone", retry_after=1.0)

    functions.serve(replace(COUNT, name="breaking"), play)
    items = client.stream("breaking", to=2)
    assert [await anext(items), await anext(items)] == [0, 1]
    with pytest.raises(Unavailable, match="every worker is gone") as caught:
        await anext(items)
    assert caught.value.retry_after == 1.0


async def test_new_types_are_asked_for_once(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflected, "RENEW_AFTER", 0.0)
    assert await client.predict("greet", who="you") == "hello you"
    functions.withdraw(GREET)
    functions.serve(replace(GREET, version="2"), greet)
    assert await client.predict("greet", who="you") == "hello you"
    assert functions.asked == ["greet", "greet"]

    more = signature("count", {"to": Scalar("int64"), "by": TEXT}, Scalar("int64"), streaming=True)
    assert [item async for item in client.stream("count", to=1)] == [0]
    functions.serve(more, count)
    assert [item async for item in client.stream("count", to=2, by="one")] == [0, 1]


async def test_a_refusal_that_is_not_about_types_is_not_repeated(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(_request: Any, _call: Call) -> None:
        raise Unsupported("not today")

    functions.serve(replace(GREET, name="idle"), play)
    with pytest.raises(Unsupported, match="not today"):
        await client.predict("idle")
    assert functions.asked == ["idle"]  # The types are new.
    monkeypatch.setattr(reflected, "RENEW_AFTER", 0.0)
    with pytest.raises(Unsupported, match="not today"):
        await client.predict("idle")
    assert functions.asked == ["idle", "idle"]
    assert len(functions.calls) == 2


async def test_a_bare_name_follows_the_default_version(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await client.predict("greet", who="you") == "hello you"
    assert await client.predict("greet@1", who="you") == "hello you"

    async def louder(request: Any, call: Call) -> None:
        await call.answer(result=f"HELLO {request.who}")

    functions.serve(replace(GREET, version="2"), louder)
    assert await client.predict("greet", who="you") == "hello you"
    monkeypatch.setattr(reflected, "FRESH_FOR", 0.0)
    assert await client.predict("greet", who="you") == "HELLO you"
    assert await client.predict("greet@1", who="you") == "hello you"


async def test_a_new_connection_asks_anew(functions: Functions) -> None:
    async with functions.serving() as target:
        client = Client(target)
        assert await client.predict("greet", who="you") == "hello you"
        await client.close()
        assert await client.predict("greet", who="you") == "hello you"
        await client.close()
    assert functions.asked == ["greet", "greet"]


async def test_one_whose_service_is_anothers_is_called_with_any_values() -> None:
    functions = Functions()

    async def play(request: Any, call: Call) -> None:
        assert request.model == "odd"
        for index in range(3):
            await call.answer(result=request.inputs["x"], index=index)

    functions.serve(replace(COUNT, name="odd"), play, typed=False)
    async with functions.serving() as target, Client(target) as client:
        array = numpy.array([1, 2], dtype=numpy.int16)
        items = [item async for item in client.stream("odd", x=[{"a": array}, None, "b"])]
        assert len(items) == 3
        numpy.testing.assert_array_equal(items[2][0]["a"], array)
        assert items[2][1:] == [None, "b"]


async def test_nothing_is_a_result(client: Client, functions: Functions) -> None:
    async def play(_request: Any, call: Call) -> None:
        await call.answer()

    functions.serve(signature("forget", output=None), play)
    assert await client.predict("forget") is None


@pytest.mark.parametrize("stage", ["model", "function"])
async def test_the_deadline_covers_the_asking(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    if stage == "model":
        monkeypatch.setattr(client.methods, "_ask", never)
    functions.serve(replace(GREET, name="greet"), never)
    with pytest.raises(DeadlineExceeded):
        await client.function("greet", deadline=0.1).predict()


async def test_one_that_is_not_ready(client: Client, functions: Functions) -> None:
    functions.models["new@1"] = pb.Model(name="new@1", state=pb.MODEL_STATE_LOADING)
    with pytest.raises(Unavailable, match="'new@1' is loading") as caught:
        await client.predict("new@1")
    assert caught.value.retry_after == 1.0
    functions.models["new@1"] = pb.Model(
        name="new@1", state=pb.MODEL_STATE_FAILED, reason="no such file"
    )
    with pytest.raises(Unavailable, match="could not be loaded: no such file"):
        await client.predict("new@1")
    functions.serve(replace(GREET, name="new"), greet)
    assert await client.predict("new@1", who="you") == "hello you"


async def test_nobody_there() -> None:
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"no gateway at 127.0.0.1:1"):
            await client.predict("greet")


async def test_the_sync_client(functions: Functions) -> None:
    def work(target: str) -> None:
        with SyncClient(target) as client:
            assert client.predict("greet", who="you") == "hello you"
            assert list(client.stream("count", to=3)) == [0, 1, 4]
            function = client.function("count", request_id="r-2")
            with function.stream(to=3) as items:
                assert next(items) == 0
            assert client.function("greet").predict(who="me") == "hello me"

    async with functions.serving() as target:
        await asyncio.to_thread(work, target)
    assert functions.calls[2]["x-request-id"] == "r-2"


def test_a_client_imports_neither_numpy_nor_nats() -> None:
    code = (
        "import sys, millstream; millstream.Client, millstream.SyncClient, millstream.Media\n"
        "print(*sorted({'numpy', 'torch', 'nats', 'pydantic', 'workers'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
