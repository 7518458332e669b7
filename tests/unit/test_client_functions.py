"""Clients of functions: values in and out, versions, deadlines, both clients."""

from __future__ import annotations

import asyncio
import enum
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy
import pydantic
import pytest
import torch

from millstream import Client, Media, SyncClient, plain, reflected
from millstream.v1 import inference_pb2 as pb
from shared.errors import DeadlineExceeded, InvalidRequest, Unavailable
from shared.values import Tensor
from tests.unit.fake_functions import (
    COUNT,
    GREET,
    TEXT,
    Call,
    Functions,
    greet,
    signature,
)
from workers.app.media import Image

# test_function_commands.py takes these from here.


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
