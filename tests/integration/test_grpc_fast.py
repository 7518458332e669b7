"""Each fast path of a call against the way it goes around: the peer sees the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.events import SendInitialMetadata, SendTrailingMetadata, listen
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, WindowUpdated
from h2.stream import H2Stream

from benchmarks.inside import Sink
from gateway.grpc import outgoing
from gateway.grpc.http2 import GuardedH2
from gateway.grpc.inbound import QuickH2
from gateway.grpc.limits import Limits
from gateway.grpc.outgoing import LONGEST, LOOK_EVERY, JoinedTransport
from tests.integration.grpc_peer import Peer, Probe, framed, serving

ROOT = Path(__file__).parents[2]


async def answer_of(prepare: Callable[[Any], None]) -> tuple[dict[str, str], bytes]:
    async def handle(stream: Any) -> None:
        stream.writer.begin_with_first("the-name")
        if not stream.writer.write([b"one", b"two"]):
            await stream.writer.send([b"one", b"two"])

    probe = Probe()
    probe.stream = handle
    async with serving(probe) as (server, port), Peer.connected(port) as peer:
        prepare(server)
        call = peer.call("/test.Probe/Stream")
        return await peer.status(call), peer.data(call)


async def test_headers_by_hand_are_those_that_grpclib_sends() -> None:
    async def nothing(_event: Any) -> None:
        pass

    def listened(server: Any) -> None:
        listen(server, SendInitialMetadata, nothing)
        listen(server, SendTrailingMetadata, nothing)

    quick = await answer_of(lambda _server: None)
    slow = await answer_of(listened)
    assert quick == slow
    assert quick[0]["x-request-id"] == "the-name"
    assert quick[0]["grpc-status"] == "0"
    assert quick[1] == framed(b"one") + framed(b"two")


def calls(client: H2Connection, names: list[str], end: bool = False) -> bytes:
    usual = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x")]
    for name in names:
        stream_id = client.get_next_available_stream_id()
        client.send_headers(stream_id, [*usual, ("x-name", name)], end_stream=end)
        if not end:
            client.send_data(stream_id, name.encode() * 3, end_stream=True)
    return client.data_to_send()


def said(events: list[Event]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, RequestReceived):
            found.append(("request", event.stream_id, [tuple(h) for h in event.headers]))
        elif isinstance(event, DataReceived):
            found.append(("data", event.stream_id, bytes(event.data), event.flow_controlled_length))
        elif isinstance(event, StreamEnded):
            found.append(("ended", event.stream_id))
    return found


def state_of(stream: H2Stream) -> dict[str, Any]:
    """All that h2 knows of a stream; the length of the data counts only where it was announced."""
    known = vars(stream) | vars(stream.state_machine) | vars(stream._inbound_window_manager)
    left_out = {"state_machine", "_inbound_window_manager", "_actual_content_length"}
    return {name: value for name, value in known.items() if name not in left_out}


@pytest.mark.parametrize("size", [1, 9, 30, 10**6])
def test_frames_read_quickly_are_read_as_h2_reads_them(size: int) -> None:
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    data = calls(client, ["a", "a", "b", "a", "a"])
    data += calls(client, ["b", "b"], end=True)
    client.ping(b"12345678")
    data += calls(client, ["a", *map(str, range(90)), "a", "a", "b", "b"])
    client.reset_stream(1)
    data += calls(client, ["a"])
    seen = []
    for cls in (GuardedH2, QuickH2):
        server = cls(Limits())
        events: list[Event] = []
        for start in range(0, len(data), size):
            events += server.receive_data(data[start : start + size])
        state = (server.highest_inbound_stream_id, server.inbound_flow_control_window)
        streams = [state_of(one) for one in server.streams.values()]
        opened = list(server._opened_at)
        seen.append((said(events), server.data_to_send(), state, streams, opened))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) > 200


def test_a_known_block_means_nothing_once_the_table_has_changed() -> None:
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    server = QuickH2(Limits())
    server.receive_data(calls(client, ["a", "a"]))
    server.receive_data(calls(client, ["a"]))
    assert server._blocks
    events = server.receive_data(calls(client, ["other", "a"]))
    names = [
        str(value)
        for event in events
        if isinstance(event, RequestReceived)
        for name, value in event.headers
        if str(name) == "x-name"
    ]
    assert names == ["other", "a"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [400, 1500])
def test_the_window_of_ended_calls_comes_back_to_the_connection(size: int, late: bool) -> None:
    seen = []
    for cls in (GuardedH2, QuickH2):
        client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        client.initiate_connection()
        server = cls(Limits(stream_window=2**16, connection_window=2**16))
        client.receive_data(server.data_to_send())
        unread: list[tuple[int, int]] = []
        given = []
        for _ in range(2**18 // size):
            room = client.outbound_flow_control_window
            stream_id = client.get_next_available_stream_id()
            client.send_headers(stream_id, [(":method", "POST"), (":path", "/a/B")])
            client.send_data(stream_id, bytes(min(size, room)), end_stream=True)
            server.receive_data(client.data_to_send())
            unread.append((min(size, room), stream_id))
            if not late or room <= size:
                for one in unread:
                    server.acknowledge_received_data(*one)
                unread.clear()
            events = client.receive_data(server.data_to_send())
            updates = [event for event in events if isinstance(event, WindowUpdated)]
            given.append([event.delta for event in updates if event.stream_id == 0])
            assert client.outbound_flow_control_window > 0
        seen.append((given, server.inbound_flow_control_window))
    assert seen[0] == seen[1]


async def test_writes_of_a_turn_are_one_and_a_burst_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([1.0, 1.0, 1.0 + 2 * LONGEST, 1.0 + 2 * LONGEST])
    monkeypatch.setattr(outgoing, "monotonic", lambda: next(clock))
    sink = Sink()
    joined = JoinedTransport(sink)
    for number in range(3):
        joined.write(bytes([number]))
    assert sink.written == []
    assert joined.get_write_buffer_size() == 3
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sink.written == [b"\0\1\2"]
    for number in range(LOOK_EVERY + 1):
        joined.write(bytes([number]))
    assert [len(data) for data in sink.written[1:]] == [LOOK_EVERY]
    joined.flush()
    assert sink.take() == bytes([0, 1, 2, *range(LOOK_EVERY + 1)])


LEFT = """
import asyncio
import gc

from benchmarks.inside import Inside


async def main() -> None:
    inside = Inside()
    await inside.request(8)
    gc.collect()
    gc.disable()
    for _ in range(4):
        await inside.request(8)
    print(gc.collect())


asyncio.run(main())
"""


def test_an_answered_request_leaves_nothing_to_the_garbage_collector() -> None:
    """In a process of its own: other tests' loggers and tracers leave cycles of theirs."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.stdout == "0\n", done.stderr
