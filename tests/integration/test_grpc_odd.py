"""Frames that a client may send and hardly any does, past the fast ways in and out."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from h2.settings import SettingCodes

from gateway.grpc import blocks
from gateway.grpc.inbound import QuickH2
from gateway.grpc.limits import Limits
from gateway.grpc.messages import ACK_BELOW
from tests.integration.grpc_peer import Peer, Probe, eventually, framed, serving

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Probe/Echo"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


async def test_trailers_of_a_request_end_it_and_cost_nobody_the_connection() -> None:
    async with serving(Probe()) as (_, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Echo", framed(b"one"), end=False)
        peer.h2.send_headers(call, [("x-sum", "1")], end_stream=True)
        peer.flush()
        assert (await peer.status(call))["grpc-status"] == "0"
        assert peer.data(call) == framed(b"one")
        after = peer.call("/test.Probe/Echo", framed(b"two"))
        assert (await peer.status(after))["grpc-status"] == "0"


async def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    async with serving(Probe()) as (_, port), Peer.connected(port) as peer:
        for _ in range(3):  # The block becomes a known one.
            await peer.status(peer.call("/test.Probe/Echo"))
        odd = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(odd, HEADERS)
        frame = bytearray(peer.h2.data_to_send())
        frame[5] |= 0x80
        peer.raw(bytes(frame))
        peer.h2.send_data(odd, framed(b"odd"), end_stream=True)
        peer.flush()
        for call in (odd, peer.call("/test.Probe/Echo")):
            assert (await peer.status(call))["grpc-status"] == "0"


@pytest.mark.parametrize("seed", range(20))
def test_a_peer_may_change_its_table_as_often_as_it_likes(seed: int) -> None:
    chance = random.Random(seed)
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    server = QuickH2(Limits(ping_budget=1000))
    for _ in range(2):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    for _ in range(60):
        if chance.random() < 0.4:
            size = chance.choice([0, 64, 100, 4096])
            client.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            continue
        call = client.get_next_available_stream_id()
        client.send_headers(call, HEADERS, end_stream=True)
        server.receive_data(client.data_to_send())
        name = str(chance.randrange(5))
        answer = server.data_to_send()
        begun = chance.random() < 0.5 and blocks.begin(server, server.streams[call], name)
        if begun:
            answer += begun
        else:
            server.send_headers(call, [(":status", "200"), ("x-request-id", name)])
        answer += server.data_to_send()
        if ended := begun and blocks.finish(server, server.streams[call]):
            answer += ended
        else:
            server.send_headers(call, [("grpc-status", "0")], end_stream=True)
        events = client.receive_data(answer + server.data_to_send())
        (response,) = [event for event in events if isinstance(event, ResponseReceived)]
        found = {str(header): str(value) for header, value in response.headers}
        assert found["x-request-id"] == name


async def test_a_reader_of_many_small_messages_holds_no_more_than_its_window() -> None:
    limits = Limits()
    held = []

    class Slow(Probe):
        async def _join(self, stream: Any) -> None:
            for _ in range(100):
                await stream.recv_message()
                held.append(len(stream._stream.buffer._data))
                await asyncio.sleep(0.001)
            await stream.send_message(b"")

    async with serving(Slow(), limits=limits) as (_, port), Peer.connected(port) as peer:
        call = peer.call("/test.Probe/Join", None, end=False)

        def feed() -> bool:
            if room := min(peer.h2.local_flow_control_window(call), 16000) // 5:
                peer.h2.send_data(call, framed(b"") * room)
                peer.flush()
            return len(held) == 100

        await eventually(feed)
    assert limits.stream_window // 2 < max(held) <= limits.stream_window + ACK_BELOW
