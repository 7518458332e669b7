from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
import uvloop
from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.settings import SettingCodes
from hyperframe.frame import RstStreamFrame, SettingsFrame

from gateway.grpc.writer import MAX_FRAME, ResponseWriter
from tests.integration.grpc_peer import Peer, Probe, channel, eventually, framed, serving

Handle = Callable[[Any], Awaitable[None]]


def probe(handle: Handle) -> Probe:
    made = Probe()
    made.stream = handle
    return made


async def test_both_paths_send_the_same_bytes() -> None:
    messages = [b"", b"a", b"\xff" * 300, bytes(5000)]

    async def fast(stream: Any) -> None:
        writer = ResponseWriter(stream)
        assert not writer.write(messages)  # the headers are not out yet
        await writer.send([])
        assert writer.write(messages)
        assert writer.write([])

    async def waiting(stream: Any) -> None:
        await ResponseWriter(stream).send(messages)

    async def plain(stream: Any) -> None:
        for message in messages:
            await stream.send_message(message)

    received = []
    for handle in (fast, waiting, plain):
        async with serving(probe(handle)) as (_, port), Peer.connected(port) as peer:
            call = peer.call("/test.Probe/Stream")
            assert (await peer.status(call))["grpc-status"] == "0"
            received.append(peer.data(call))
            if handle is fast:
                assert len(peer.of(DataReceived)) == 1
    assert received == [b"".join(framed(message) for message in messages)] * 3


async def test_what_no_frame_can_hold_is_left_to_send() -> None:
    async def huge(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        assert not writer.write([bytes(2**24)])
        assert not writer.write([bytes(2**23)] * 2)

    async with serving(probe(huge)) as (_, port), Peer.connected(port) as peer:
        assert (await peer.status(peer.call("/test.Probe/Stream")))["grpc-status"] == "0"


async def test_write_refuses_exactly_at_the_window_and_send_waits() -> None:
    refused = asyncio.Event()
    sent = []

    async def fill(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        while writer.write([bytes(95)]):
            sent.append(100)
        refused.set()
        assert writer.write([bytes(20)])  # 25 of the last 50 bytes
        await writer.send([bytes(95)])

    async with serving(probe(fill)) as (server, port), Peer.connected(port, window=1050) as peer:
        call = peer.call("/test.Probe/Stream")
        await asyncio.wait_for(refused.wait(), 30)
        assert sum(sent) == 1000
        await eventually(lambda: len(peer.data(call)) == 1050)
        assert server.calls_open == 1
        peer.acknowledge()
        assert (await peer.status(call))["grpc-status"] == "0"
        assert len(peer.data(call)) == 1000 + 25 + 100


async def test_the_window_of_the_connection_counts_too() -> None:
    async def fill(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        while writer.write([bytes(995)]):
            pass
        await writer.send([bytes(5000)])

    async with (
        serving(probe(fill)) as (_, port),
        Peer.connected(port, connection_window=65535) as peer,
    ):
        calls = [peer.call("/test.Probe/Stream") for _ in range(2)]
        await eventually(lambda: sum(len(peer.data(call)) for call in calls) == 65535)
        peer.acknowledge()
        for call in calls:
            assert (await peer.status(call))["grpc-status"] == "0"


async def test_a_batch_above_the_frame_size_goes_the_other_way() -> None:
    async def large(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        assert not writer.write([bytes(20_000)])
        assert writer.write([bytes(16_384 - 5)])
        await writer.send([bytes(20_000)])

    async with serving(probe(large)) as (_, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Stream")
        assert (await peer.status(call))["grpc-status"] == "0"
        assert len(peer.data(call)) == 16_384 + 20_005


async def test_frames_stay_bounded_where_the_peer_allows_huge_ones() -> None:
    async def large(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        assert not writer.write([bytes(MAX_FRAME)])
        await writer.send([bytes(10 * MAX_FRAME)])

    async with serving(probe(large)) as (_, port), Peer.connected(port) as peer:
        peer.h2.max_inbound_frame_size = 2**24 - 1
        peer.raw(SettingsFrame(0, settings={SettingCodes.MAX_FRAME_SIZE: 2**24 - 1}).serialize())
        call = peer.call("/test.Probe/Stream")
        assert (await peer.status(call))["grpc-status"] == "0"
        assert max(len(e.data) for e in peer.of(DataReceived)) == MAX_FRAME


async def test_the_end_of_the_stream_is_a_refusal_not_a_crash() -> None:
    outcomes: list[object] = []
    writers: list[ResponseWriter] = []

    async def wait(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([b"first"])
        writers.append(writer)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            outcomes.append(writer.write([b"late"]))
            try:
                await writer.send([b"late"])
            except StreamTerminatedError as error:
                outcomes.append(type(error))

    async with serving(probe(wait)) as (_, port), Peer.connected(port) as peer:
        reset = peer.call("/test.Probe/Stream")
        await eventually(lambda: len(writers) == 1)
        peer.raw(RstStreamFrame(reset, error_code=ErrorCodes.CANCEL).serialize())
        await eventually(lambda: outcomes == [False, StreamTerminatedError])
        peer.call("/test.Probe/Stream")
        await eventually(lambda: len(writers) == 2)
        peer._writer.transport.abort()
        await eventually(lambda: outcomes == [False, StreamTerminatedError] * 2)


async def test_write_refuses_while_a_send_is_under_way() -> None:
    order: list[bool] = []

    async def both(stream: Any) -> None:
        writer = ResponseWriter(stream)
        sending = asyncio.create_task(writer.send([bytes(2000)]))
        await eventually(writer._sending.locked)
        order.append(writer.write([b"between"]))
        second = asyncio.create_task(writer.send([b"after"]))
        await asyncio.gather(sending, second)

    async with serving(probe(both)) as (_, port), Peer.connected(port, window=1000) as peer:
        call = peer.call("/test.Probe/Stream")
        await eventually(lambda: order == [False])
        peer.acknowledge()
        assert (await peer.status(call))["grpc-status"] == "0"
        assert peer.data(call) == framed(bytes(2000)) + framed(b"after")


@pytest.mark.parametrize("seed", range(5))
async def test_many_streams_with_small_windows_arrive_whole(seed: int) -> None:
    """The peer's h2 ends the connection should a window ever be overrun."""
    chance = random.Random(seed)

    def plan() -> list[list[bytes]]:
        return [
            [
                chance.randbytes(chance.choice([0, 10, 700, 9000]))
                for _ in range(chance.randint(1, 5))
            ]
            for _ in range(30)
        ]

    async def mixed(stream: Any) -> None:
        writer = ResponseWriter(stream)
        for number, batch in enumerate(plans[stream.metadata["plan"]]):
            if not writer.write(batch):
                await writer.send(batch)
            if number % 3 == 0:
                await asyncio.sleep(0)

    plans: dict[str, Sequence[list[bytes]]] = {str(i): plan() for i in range(20)}
    async with (
        serving(probe(mixed)) as (_, port),
        Peer.connected(port, window=5000, connection_window=65535) as peer,
    ):
        peer.acknowledging = True
        calls = {name: peer.call("/test.Probe/Stream", headers={"plan": name}) for name in plans}
        for name, call in calls.items():
            assert (await peer.status(call))["grpc-status"] == "0"
            whole = b"".join(framed(message) for batch in plans[name] for message in batch)
            assert peer.data(call) == whole


async def test_a_grpcio_client_that_stops_reading_holds_up_nobody() -> None:
    filled: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    async def fill(stream: Any) -> None:
        writer = ResponseWriter(stream)
        await writer.send([])
        sent = 0
        while writer._window() >= 1005:
            if writer.write([bytes(1000)]):
                sent += 1000
            await asyncio.sleep(0)
        assert not writer.write([bytes(1000)])
        filled.set_result((sent, stream._stream._transport.get_write_buffer_size()))
        await writer.send([bytes(1000)])

    async with serving(probe(fill)) as (_, port), channel(port) as client:
        slow = client.unary_stream("/test.Probe/Stream")(b"")
        sent, buffered = await asyncio.wait_for(filled, 60)
        assert sent < 2**24
        assert buffered < 2 * MAX_FRAME
        echo = client.unary_unary("/test.Probe/Echo")
        assert await echo(b"same connection") == b"same connection"
        async with channel(port) as other:
            assert await other.unary_unary("/test.Probe/Echo")(b"x" * 10**6) == b"x" * 10**6
        slow.cancel()


async def test_a_client_that_stops_reading_its_socket_costs_one_buffer() -> None:
    transports: list[asyncio.Transport] = []
    parked = 0

    async def fill(stream: Any) -> None:
        nonlocal parked
        writer = ResponseWriter(stream)
        await writer.send([])
        transports.append(stream._stream._transport)
        while writer.write([bytes(10_000)]):
            pass
        parked += 1
        await writer.send([bytes(10**6)])

    async with serving(probe(fill)) as (server, port), Peer.connected(port) as peer:
        await eventually(lambda: bool(peer.events))
        peer._task.cancel()  # nobody reads any more
        for _ in range(50):
            peer.call("/test.Probe/Stream")
        await eventually(lambda: parked >= 1 and server.calls_open == 50)
        assert 0 < transports[0].get_write_buffer_size() < 4 * MAX_FRAME
        async with Peer.connected(port) as other:
            assert (await other.status(other.call("/test.Probe/Echo")))["grpc-status"] == "0"


SCENARIOS = [
    test_both_paths_send_the_same_bytes,
    test_write_refuses_exactly_at_the_window_and_send_waits,
    test_the_end_of_the_stream_is_a_refusal_not_a_crash,
    test_a_client_that_stops_reading_its_socket_costs_one_buffer,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_uvloop_too(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(scenario())
