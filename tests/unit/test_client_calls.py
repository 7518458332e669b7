from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame

from millstream import Client, SyncClient
from millstream.channel import split_target
from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest
from tests.unit.fake_gateway import (
    FakeGateway,
    GenerateStream,
    count_to_three,
    delta,
    finished,
    for_ever,
    started,
)


async def test_models_and_cancel() -> None:
    async with FakeGateway(count_to_three).serving() as target, Client(target) as client:
        (only,) = await client.models()
        assert (only.name, only.state, only.workers, only.features) == (
            "sim",
            "ready",
            2,
            ("resume",),
        )
        assert (await client.model("other")).name == "other"
        await client.cancel("r1")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "input"),
        ({"prompt": "a", "token_ids": [1]}, "input"),
        ({"token_ids": [-1]}, "token_ids"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "stop": [1]}, "stop"),
        ({"prompt": "a", "priority": "urgent"}, "priority"),
        ({"prompt": "a", "request_id": 7}, "request_id"),
        ({"prompt": "a", "labels": {"a": 1}}, "labels"),
        ({"prompt": "a", "max_token": 1}, "max_token"),
    ],
)
def test_what_the_message_cannot_hold_is_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client().generate(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("example.org:1", ("example.org", 1)),
        ("example.org", ("example.org", 50051)),
        ("[::1]:7", ("::1", 7)),
        ("::1", ("::1", 50051)),
        (":9", ("127.0.0.1", 9)),
    ],
)
def test_targets(target: str, expected: tuple[str, int]) -> None:
    assert split_target(target) == expected


@pytest.mark.parametrize("target", ["a:b", "a:0", "a:70000"])
def test_bad_targets(target: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(target)


async def test_a_draining_gateway_finishes_what_runs_and_new_calls_connect_anew() -> None:
    go_on = asyncio.Event()
    connections = []

    async def drain(_request: pb.GenerateRequest, stream: GenerateStream) -> None:
        transport = stream._stream._transport
        connections.append(transport)
        await stream.send_message(started())
        if len(connections) == 1:
            transport.write(GoAwayFrame(last_stream_id=2**31 - 1).serialize())
        await stream.send_message(delta(0, " 0", (0,)))
        if len(connections) == 1:
            await go_on.wait()
        await stream.send_message(finished())

    async with FakeGateway(drain).serving() as target, Client(target) as client:
        old = client.generate("p")
        await anext(old)
        assert (await client.complete("p")).text == " 0"
        go_on.set()
        assert [piece async for piece in old] == []
        assert old.finished is not None
    assert connections[0] is not connections[1]


async def test_a_call_that_the_draining_gateway_did_not_take_fails() -> None:
    async def refuse(_request: pb.GenerateRequest, stream: GenerateStream) -> None:
        stream._stream._transport.write(GoAwayFrame(last_stream_id=0).serialize())
        await asyncio.Event().wait()

    async with FakeGateway(refuse).serving() as target, Client(target) as client:
        with pytest.raises(Exception, match="did not take this call"):
            await asyncio.wait_for(client.complete("p"), 5)


async def test_sync_client() -> None:
    gateway = FakeGateway(count_to_three)

    def use(target: str) -> None:
        with SyncClient(target) as client:
            answer = client.generate("p", model="sim")
            assert [piece.text for piece in answer] == [" 0", " 1 2"]
            assert answer.started is not None
            assert answer.finished is not None
            assert client.complete("p").text == " 0 1 2"
            assert [one.name for one in client.models()] == ["sim"]
            assert client.model("x").name == "x"
            client.cancel("r1")

    async with gateway.serving() as target:
        await asyncio.to_thread(use, target)


async def test_sync_client_cancels() -> None:
    gateway = FakeGateway(for_ever)

    def use(target: str) -> None:
        with SyncClient(target) as client, client.generate("p") as answer:
            assert next(answer).text == " 0"

    async with gateway.serving() as target:
        await asyncio.to_thread(use, target)
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


def test_a_client_imports_neither_nats_nor_an_engine() -> None:
    code = (
        "import sys, millstream, millstream.channel; millstream.Client(); millstream.SyncClient();"
        "import gateway.status;"
        "bad = {'nats', 'torch', 'vllm', 'transformers', 'workers', 'msgpack'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
