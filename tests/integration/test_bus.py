"""The bus on a real nats-server that is killed, stopped and restarted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Server

from millstream.nats_server import NatsServer
from shared import bus as bus_module
from shared.bus import Bus, BusOptions, parse_puback
from shared.errors import Overloaded, RequestTooLarge, Unavailable
from shared.natsio import MOST_JOINED, RETRY_SOON, SOON, next_server
from shared.ready import loop_factory
from shared.streams import ensure_streams
from tests.faults.harness import until


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", max_payload=64 * 1024) as server:
        yield server


@pytest.fixture
async def bus(nats: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(BusOptions((nats.url,), "test"))
    yield bus
    await bus.close()


def collect(into: list[bytes]) -> Callable[[bytes, bytes, bytes, bytes], None]:
    return lambda _subject, _reply, _headers, data: into.append(data)


async def test_what_one_turn_publishes_arrives_in_order(bus: Bus) -> None:
    got: list[bytes] = []
    bus.listen("x.*", collect(got))
    await bus.start()
    for number in range(1000):
        assert bus.publish(f"x.{number % 3}", b"%d" % number)
    await until(lambda: len(got) == 1000, "all arrive")
    assert got == [b"%d" % number for number in range(1000)]


async def test_large_and_empty_messages_with_headers(bus: Bus) -> None:
    got: list[tuple[bytes, bytes, bytes, bytes]] = []
    bus.listen("x", lambda *message: got.append(message))
    await bus.start()
    large = bytes(range(256)) * 250
    bus.publish("x", large, reply="back", headers=b"NATS/1.0\r\nA: b\r\n\r\n")
    bus.publish("x", b"")
    await until(lambda: len(got) == 2, "both arrive")
    assert got[0] == (b"x", b"back", b"NATS/1.0\r\nA: b\r\n\r\n", large)
    assert got[1] == (b"x", b"", b"", b"")


async def test_odd_bytes_in_a_subject_are_part_of_it(bus: Bus) -> None:
    got: list[bytes] = []
    bus.listen("x.>", lambda subject, _reply, _headers, _data: got.append(subject))
    await bus.start()
    odd = [b"x.a\x0cb", b"x.\x0b1", "x.\u2003y".encode()]
    for subject in odd:
        bus.publish(subject.decode(), b"1", reply="back")
    await until(lambda: got == odd, "all arrive")


async def test_a_handler_that_raises_stops_nothing(bus: Bus) -> None:
    got: list[bytes] = []

    def broken(_subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        raise ZeroDivisionError(data)

    bus.listen("bad", broken)
    bus.listen("good", collect(got))
    await bus.start()
    for _ in range(3):
        bus.publish("bad", b"!")
        bus.publish("good", b"1")
    await until(lambda: len(got) == 3, "the others arrive")
    assert bus.client.events == {"handler_error": 3}
    assert bus.connected


async def test_it_starts_before_its_server(tmp_path: Path) -> None:
    first = NatsServer(tmp_path / "nats").start()
    first.stop()
    bus = Bus(BusOptions((first.url,), "early"))
    starting = asyncio.create_task(bus.start())
    await asyncio.wait({starting}, timeout=0.5)
    assert not starting.done()
    await asyncio.to_thread(first.start)
    await asyncio.wait_for(starting, 30)
    assert bus.connected
    await bus.close()
    first.stop()


async def test_subscriptions_outlive_a_killed_server(
    nats: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []
    changes: list[str] = []
    waits: list[float] = []

    def noting(servers: list[Server], info: dict[str, Any]) -> tuple[Server, float]:
        server, wait = next_server(servers, info)
        waits.append(wait)
        return server, wait

    monkeypatch.setattr(bus_module, "next_server", noting)
    bus.listen("x", collect(got))
    bus.on_connect.append(lambda: changes.append("up"))
    bus.on_disconnect.append(lambda: changes.append("down"))
    await bus.start()
    before = bus.connection
    await asyncio.to_thread(nats.kill)
    await until(lambda: not bus.connected, "it notices")
    assert not bus.publish("x", b"stale"), "what goes out later would be stale"
    with pytest.raises(Unavailable):
        bus.ask("x", b"", got.append)
    await asyncio.to_thread(nats.start)
    await until(lambda: bus.connected, "it is back")
    assert 0 < waits[0] <= RETRY_SOON
    assert bus.connection != before
    assert bus.publish("x", b"new")
    await until(lambda: got == [b"new"], "only what is new arrives")
    assert changes == ["up", "down", "up"]


async def test_a_black_hole_is_left_even_with_a_backlog(nats: NatsServer, bus: Bus) -> None:
    """A stopped server: the library would wait for its backlog to be taken."""
    changes: list[str] = []
    bus.on_connect.append(lambda: changes.append("up"))
    bus.on_disconnect.append(lambda: changes.append("down"))
    await bus.start()
    nats.pause()
    for _ in range(2000):
        bus.publish("x", b"x" * 8192)
        await asyncio.sleep(0)
    await until(lambda: not bus.connected, "it notices")
    nats.resume()
    await until(lambda: bus.connected, "it is back")
    assert changes == ["up", "down", "up"]


def test_reconnects_are_jittered_soon_first_and_bounded() -> None:
    def waits(reconnects: int) -> list[float]:
        server = Server(uri=None, reconnects=reconnects)  # type: ignore[arg-type]
        return [next_server([server], {})[1] for _ in range(200)]

    for reconnects, most in ((0, 0.1), (SOON, 0.1), (SOON + 2, 0.4), (1000, 2.0)):
        found = waits(reconnects)
        assert len(set(found)) > 100
        assert 0.2 * most <= min(found)
        assert most * 0.8 < max(found) <= most


async def test_the_least_tried_server_is_next() -> None:
    servers = [Server(uri=None, reconnects=n) for n in (3, 1, 2)]  # type: ignore[arg-type]
    assert next_server(servers, {})[0] is servers[1]


async def test_too_large_is_refused_with_both_sizes(bus: Bus) -> None:
    await bus.start()
    bus.check_size(bus.max_payload)
    with pytest.raises(RequestTooLarge, match=rf"{bus.max_payload + 1} bytes.*{bus.max_payload}"):
        bus.check_size(bus.max_payload + 1)


async def test_a_full_queue_refuses_at_once(bus: Bus) -> None:
    await bus.start()
    await ensure_streams(bus, 2)
    outcomes = [parse_puback(await bus.request("ms.req.m.standard", b"x", 10.0)) for _ in range(3)]
    assert outcomes[:2] == [1, 2]
    assert isinstance(outcomes[2], Overloaded)
    assert outcomes[2].retry_after is not None
    assert parse_puback(await bus.request("ms.req.m.batch", b"x", 10.0)) == 3


async def test_a_stream_that_is_away(bus: Bus) -> None:
    await bus.start()
    outcome = parse_puback(await bus.request("ms.req.m.standard", b"x", 10.0))
    assert isinstance(outcome, Unavailable)


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b'{"seq": "x"}', b"garbage", b'{"error": 7}', b"NATS/1.0 503"]
)
def test_any_answer_to_a_publish_is_read(answer: bytes) -> None:
    assert isinstance(parse_puback(answer), Unavailable)


async def test_storage_that_is_lost(nats: NatsServer, bus: Bus) -> None:
    await bus.start()
    await ensure_streams(bus, 5)
    assert parse_puback(await bus.request("ms.req.m.standard", b"x", 10.0)) == 1
    await asyncio.to_thread(nats.kill)
    await until(lambda: not bus.connected, "it notices")
    shutil.rmtree(nats.directory / "jetstream")
    await asyncio.to_thread(nats.start)
    await until(lambda: bus.connected, "it is back")
    await ensure_streams(bus, 5)
    assert parse_puback(await bus.request("ms.req.m.standard", b"x", 10.0)) == 1


async def test_a_lazy_message_waits_for_company_and_not_for_long(
    nats: NatsServer, bus: Bus
) -> None:
    got: list[bytes] = []
    bus.listen("x", collect(got))
    await bus.start()
    assert bus.publish("x", b"1", lazy=True)
    assert bus.publish("x", b"2")
    await until(lambda: got == [b"1", b"2"], "both arrive, in order")
    assert bus.publish("x", b"3", lazy=True)
    await until(lambda: got == [b"1", b"2", b"3"], "it arrives alone")


async def test_a_burst_is_not_held_back_to_its_end(bus: Bus) -> None:
    got: list[bytes] = []
    bus.listen("x", collect(got))
    await bus.start()
    sent = [str(number).encode() for number in range(2 * MOST_JOINED + 1)]
    for data in sent:
        assert bus.publish("x", data)
    assert len(bus.client._unsent) == 1
    await until(lambda: got == sent, "all arrive, in order")


def test_senders_hear_nothing_of_a_connection_that_dies(nats: NatsServer) -> None:
    async def scenario() -> None:
        bus = Bus(BusOptions((nats.url,), "sender"))
        await bus.start()
        for _ in range(10):
            transport = bus.client._tcp()
            assert transport is not None
            transport.abort()
            while bus.connected:
                for _ in range(MOST_JOINED):
                    bus.publish("x", b"1")
                await asyncio.sleep(0)
            await until(lambda: bus.connected, "it is back")
        await bus.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # uvloop's transports raise.
        runner.run(scenario())
