"""Clients of functions that stream: order, leaving, streams that nobody reads, cancellation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from millstream import Client
from shared.errors import DeadlineExceeded, InternalError
from tests.unit.fake_functions import COUNT, GREET, TEXT, Call, Functions, signature


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
