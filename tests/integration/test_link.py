"""A gateway's side of NATS on a real nats-server: the queue, Cancel, and what cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cancels import SCATTER_LIMIT
from gateway.link import Link
from millstream.nats_server import NatsServer
from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.errors import MillstreamError, RequestTooLarge, Unavailable
from shared.tasks import cancel
from tests.eventually import until

REQUEST = wire.Request("R", 0, "a", "name", "m", "p", None, None, wire.Sampling(), tenant="t")


class Outlet:
    """Keeps how the answer ended."""

    def __init__(self) -> None:
        self.errors: list[MillstreamError] = []

    def failed(self, error: MillstreamError) -> None:
        self.errors.append(error)

    @property
    def ended(self) -> list[str]:
        return [error.kind for error in self.errors]

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args: None


class Gateway:
    """A link, its connection and what it runs."""

    def __init__(self, url: str, name: str) -> None:
        self.bus = Bus(BusOptions((url,), name))
        self.link = Link(self.bus, name, max_queue=5, queue_seconds=60.0)
        self.bus.listen("broken", self._broken)
        self.serving = asyncio.create_task(self.link.serve())

    def _broken(self, *_message: bytes) -> None:
        raise ZeroDivisionError

    def open(self) -> Outlet:
        outlet = Outlet()
        request = replace(REQUEST, gateway=self.link.router.gateway)
        self.link.router.open(request, outlet, deadline=None)
        return outlet

    async def publish(self, request: wire.Request) -> int | MillstreamError:
        done: asyncio.Future[int | MillstreamError] = asyncio.get_running_loop().create_future()
        self.link.publish(request, done.set_result)
        return await done

    async def queued(self, request: wire.Request, sequence: int) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.link.audit(request.id, request.attempt, request.urgency, sequence, done.set_result)
        return await done

    @property
    def events(self) -> dict[str, int]:
        return dict(self.link.router.events)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    with NatsServer(tmp_path / "nats") as server:
        pair = Gateway(server.url, "a"), Gateway(server.url, "b")
        await until(
            lambda: all(one.link.ready and one.link.peers for one in pair), "they see each other"
        )
        yield pair
        for one in pair:
            await cancel(one.serving)
            await one.link.close()


async def test_an_attempt_is_queued_once_found_and_taken_out(pair: tuple[Gateway, ...]) -> None:
    one = pair[0]
    sequence = await one.publish(REQUEST)
    assert isinstance(sequence, int)
    assert await one.publish(REQUEST) == sequence, "the same message id"
    assert await one.queued(REQUEST, sequence)
    other = replace(REQUEST, attempt=1)
    assert not await one.queued(other, sequence), "the sequence is another's"
    assert not await one.queued(REQUEST, sequence + 1), "nothing is there"

    one.link.unqueue("R", 1, REQUEST.urgency, sequence)
    one.link.unqueue("R", 0, REQUEST.urgency, sequence + 1)
    for _ in range(3):  # The first answers may come before what would delete it.
        assert await one.queued(REQUEST, sequence)
    one.link.unqueue("R", 0, REQUEST.urgency, sequence)
    async with asyncio.timeout(30.0):
        while await one.queued(REQUEST, sequence):
            pass


async def test_what_cannot_be_queued_is_told(pair: tuple[Gateway, ...]) -> None:
    one = pair[0]
    large = replace(REQUEST, prompt="x" * (one.bus.max_payload + 1))
    assert isinstance(await one.publish(large), RequestTooLarge)
    await one.link.close()
    assert isinstance(await one.publish(REQUEST), Unavailable)


async def test_cancel_finds_the_gateway_that_runs_it(pair: tuple[Gateway, ...]) -> None:
    asked, other = pair
    outlet = other.open()
    assert not await asked.link.cancels.anywhere("somebody", "name")
    assert outlet.ended == []
    assert await asked.link.cancels.anywhere("t", "name")
    assert outlet.ended == ["Cancelled"]
    assert not await asked.link.cancels.anywhere("t", "name")

    outlet = asked.open()
    assert await asked.link.cancels.anywhere("t", "name")
    assert outlet.ended == ["Cancelled"]


async def test_a_gateway_that_lives_and_is_silent_is_named(pair: tuple[Gateway, ...]) -> None:
    asked = pair[0]
    asked.link.peers["silent"] = asked.link.now() + SCATTER_LIMIT
    with pytest.raises(Unavailable, match="gateways silent did not answer"):
        await asked.link.cancels.anywhere("t", "name")
    await asked.link.close()
    with pytest.raises(Unavailable, match="NATS is away"):
        await asked.link.cancels.anywhere("t", "name")


ECHO = wire.encode(wire.Echo(1))


@pytest.mark.parametrize(
    ("subject", "data", "reply"),
    [
        (subjects.reply("a", "R"), b"?", ""),
        (subjects.gateway("a"), b"?", ""),
        (subjects.gateway("a"), wire.encode(wire.Stop(1)), ""),
        (subjects.heartbeat("w"), b"?", ""),
        (subjects.heartbeat("w"), ECHO, ""),
        (subjects.announcement("w"), ECHO, ""),
        (subjects.gateway_beat("g"), ECHO, ""),
        (subjects.CANCEL, b"?", "_INBOX.x"),
        (subjects.CANCEL, ECHO, "_INBOX.x"),
        (subjects.CANCEL, wire.encode(wire.CancelAsk("t", "name")), ""),
    ],
)
async def test_what_does_not_belong_there_is_counted(
    pair: tuple[Gateway, ...], subject: str, data: bytes, reply: str
) -> None:
    one, other = pair
    other.bus.publish(subject, data, reply=reply)
    await until(lambda: one.events.get("malformed") == 1, "it is counted")
    assert one.bus.connected
    assert not one.bus.client.events["handler_error"]


async def test_what_befalls_the_connection_is_among_the_events(pair: tuple[Gateway, ...]) -> None:
    one, other = pair
    other.bus.publish("broken", b"")
    await until(lambda: one.events.get("handler_error") == 1, "it is counted")
    await one.link.close()
    one.link.ask_announcements()
    assert one.events["refused_send"] >= 1
