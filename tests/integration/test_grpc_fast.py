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
from h2.events import DataReceived, Event, RequestReceived, StreamEnded

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
        seen.append((said(events), server.data_to_send(), state, sorted(server.streams)))
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
