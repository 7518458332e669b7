from __future__ import annotations

import asyncio
import socket

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from millstream import Client, Delta
from millstream.answers import Finished, Started, Timing, Usage
from millstream.v1 import inference_pb2 as pb
from shared.errors import DeadlineExceeded, InternalError, InvalidRequest, Unavailable
from tests.unit.fake_gateway import (
    FakeGateway,
    GenerateStream,
    Script,
    count_to_three,
    delta,
    finished,
    for_ever,
    started,
)


def sending(*responses: pb.GenerateResponse) -> Script:
    async def script(_request: pb.GenerateRequest, stream: GenerateStream) -> None:
        for response in responses:
            await stream.send_message(response)

    return script


async def test_pieces_arrive_in_order_between_start_and_end() -> None:
    gateway = FakeGateway(count_to_three)
    async with gateway.serving() as target, Client(target) as client:
        answer = client.generate("hello", model="sim", request_id="mine")
        pieces = [piece async for piece in answer]
        assert pieces == [Delta(0, " 0", (0,)), Delta(1, " 1 2", (1, 2))]
        assert answer.started == Started("mine", "sim", "w1")
        assert answer.finished == Finished(
            "length", Usage(2, 3, 1), Timing(0.1, 0.2, 0.3), 1, ("length",)
        )


async def test_the_request_carries_what_was_given_and_no_more() -> None:
    gateway = FakeGateway(count_to_three)
    async with (
        gateway.serving() as target,
        Client(target, metadata={"x-team": "a"}, api_key="k") as client,
    ):
        await client.complete(
            messages=[{"role": "system", "content": "be brief"}, ("user", "hi")],
            temperature=0.0,
            max_tokens=3,
            stop="end",
            priority="batch",
            labels={"a": "b"},
        )
    (request,) = gateway.requests
    assert [(one.role, one.content) for one in request.messages] == [
        ("system", "be brief"),
        ("user", "hi"),
    ]
    sampling = request.sampling
    assert sampling.HasField("temperature")
    assert sampling.temperature == 0.0
    assert not sampling.HasField("top_p")
    assert list(sampling.stop) == ["end"]
    assert request.priority == pb.PRIORITY_BATCH
    assert dict(request.labels) == {"a": "b"}
    (metadata,) = gateway.metadata
    assert metadata["authorization"] == "Bearer k"
    assert metadata["x-team"] == "a"


async def test_complete_joins_every_choice() -> None:
    script = sending(
        started(),
        delta(0, "a", (1,)),
        delta(0, "x", (7,), choice=1),
        delta(1, "b", (2,)),
        finished(),
    )
    async with FakeGateway(script).serving() as target, Client(target) as client:
        whole = await client.complete("p", n=2)
    assert whole.text == "ab"
    assert whole.texts == ("ab", "x")
    assert whole.token_ids == ((1, 2), (7,))


@pytest.mark.parametrize(
    ("responses", "says"),
    [
        ((started(), delta(0, "a", (1,)), delta(2, "c", (3,)), finished()), "begins at token 2"),
        ((started(), delta(0, "a", (1,)), delta(0, "a", (1,)), finished()), "begins at token 0"),
        ((started(), delta(0, "a", (1,))), "before the answer was complete"),
        ((started(), finished(), delta(0, "a", (1,))), "after the end"),
    ],
    ids=["gap", "repetition", "no end", "after the end"],
)
async def test_a_broken_stream_is_an_error(
    responses: tuple[pb.GenerateResponse, ...], says: str
) -> None:
    async with FakeGateway(sending(*responses)).serving() as target, Client(target) as client:
        with pytest.raises(InternalError, match=says):
            await client.complete("p")


async def test_leaving_the_loop_cancels() -> None:
    gateway = FakeGateway(for_ever)
    async with gateway.serving() as target, Client(target) as client:
        async for _ in client.generate("p"):
            break
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


async def test_leaving_the_block_cancels() -> None:
    gateway = FakeGateway(for_ever)
    async with gateway.serving() as target, Client(target) as client:
        async with client.generate("p") as answer:
            await anext(answer)
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


async def test_cancelling_the_task_cancels() -> None:
    gateway = FakeGateway(for_ever)
    async with gateway.serving() as target, Client(target) as client:
        began = asyncio.Event()

        async def read() -> None:
            async for _ in client.generate("p"):
                began.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(began.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


async def test_the_deadline_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    began = asyncio.Event()

    async def begin(request: pb.GenerateRequest, stream: GenerateStream) -> None:
        began.set()
        await for_ever(request, stream)

    gateway = FakeGateway(begin)
    async with gateway.serving() as target, Client(target) as client:
        answer = asyncio.create_task(client.complete("p", deadline=60.0))
        await asyncio.wait_for(began.wait(), 5)
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + 60.0)  # A minute passes.
        with pytest.raises(DeadlineExceeded):
            await answer
        await asyncio.wait_for(gateway.cancelled.wait(), 5)


async def test_a_status_becomes_its_error() -> None:
    async def refuse(_request: pb.GenerateRequest, _stream: GenerateStream) -> None:
        raise GRPCError(Status.INVALID_ARGUMENT, "max_tokens: want at least 1")

    async with FakeGateway(refuse).serving() as target, Client(target) as client:
        with pytest.raises(InvalidRequest, match="want at least 1"):
            await client.complete("p")


async def test_nobody_listens() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # Nobody else gets the port, and none listens at it.
        target = f"127.0.0.1:{deaf.getsockname()[1]}"
        async with Client(target) as client:
            with pytest.raises(Unavailable, match=target):
                await client.complete("p")


async def test_the_gateway_dies_in_the_middle() -> None:
    async def die(_request: pb.GenerateRequest, stream: GenerateStream) -> None:
        await stream.send_message(started())
        await stream.send_message(delta(0, " 0", (0,)))
        stream._stream._transport.abort()

    async with FakeGateway(die).serving() as target, Client(target) as client:
        with pytest.raises(Unavailable, match="broke"):
            await client.complete("p")


async def test_closing_twice_and_reusing() -> None:
    async with FakeGateway(count_to_three).serving() as target:
        client = Client(target)
        await client.complete("p")
        await client.close()
        await client.close()
        assert (await client.complete("p")).text == " 0 1 2"
        await client.close()
