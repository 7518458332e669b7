"""The intake on a real nats-server: what is pulled, given back, and survives."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.nats_server import NatsServer
from shared import subjects, wire
from shared.bus import Bus, BusOptions, parse_puback
from shared.streams import StreamConfigError, ensure_streams
from shared.wire import envelope
from tests.faults.harness import until
from workers import acks
from workers.intake import Intake

MODEL = "m"


class Worker:
    """An intake with slots that are filled by hand."""

    def __init__(self, url: str, slots: int) -> None:
        self.bus = Bus(BusOptions((url,), "w"))
        self.slots = slots
        self.taken: list[dict[str, Any]] = []
        self.events: Counter[str] = Counter()
        self.intake = Intake(self.bus, MODEL, self.free, self.take, self.events)

    def free(self) -> int:
        return self.slots - len(self.taken)

    def take(
        self, gateway: str, request_id: str, attempt: int, token: str, body: bytes, *,
        fresh: bool, deaths: int,
    ) -> None:  # fmt: skip
        self.taken.append(
            {"gateway": gateway, "id": request_id, "attempt": attempt, "token": token,
             "body": body, "fresh": fresh, "deaths": deaths}
        )  # fmt: skip

    def ids(self) -> list[str]:
        return [one["id"] for one in self.taken]

    def done(self) -> None:
        for one in self.taken:
            self.bus.publish(one["token"], acks.ACK)
        self.taken.clear()
        self.intake.plan()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def worker(nats: NatsServer) -> AsyncIterator[Worker]:
    worker = Worker(nats.url, 2)
    await worker.bus.start()
    await worker.intake.start()
    planning = asyncio.create_task(_plan(worker.intake))
    yield worker
    planning.cancel()
    worker.intake.stop()
    await worker.bus.close()


async def _plan(intake: Intake) -> None:
    while True:
        intake.plan()
        await asyncio.sleep(0.02)


async def queue(bus: Bus, name: str, urgency: int = 2, attempt: int = 0, deaths: int = 0) -> None:
    request = wire.Request(
        name, attempt, "g", "r", MODEL, "p", None, None, wire.Sampling(), urgency, deaths=deaths
    )
    headers = envelope.headers(request, ttl=60)
    answer = await bus.request(subjects.request(MODEL, urgency), name.encode(), 5.0, headers)
    assert isinstance(parse_puback(answer), int)


async def test_what_is_queued_is_taken_whole(worker: Worker) -> None:
    await queue(worker.bus, "R", urgency=0, attempt=3, deaths=2)
    await until(lambda: worker.taken != [], "it is taken")
    one = worker.taken[0]  # It comes again where nobody acks it for 0.15 s.
    del one["token"]
    assert one == {
        "gateway": "g", "id": "R", "attempt": 3, "body": b"R", "fresh": True, "deaths": 2
    }  # fmt: skip


async def test_no_more_is_held_than_can_start_and_the_urgent_goes_first(worker: Worker) -> None:
    for number in range(2):
        await queue(worker.bus, f"first{number}")
    await until(lambda: len(worker.taken) == 2, "the slots are full")
    worker.slots = 0
    worker.done()
    # What they bring now would be given back, and for a moment be offered to nobody.
    await until(lambda: not worker.intake._pulls.asked, "the standing pulls have expired")
    await queue(worker.bus, "late", urgency=3)
    await queue(worker.bus, "middle", urgency=2)
    await queue(worker.bus, "urgent", urgency=1)
    await queue(worker.bus, "resumed", urgency=0)
    assert worker.taken == []
    worker.slots = 2
    await until(lambda: len(worker.taken) == 2, "two are taken")
    assert set(worker.ids()) == {"resumed", "urgent"}
    worker.done()
    await until(lambda: len(worker.taken) == 2, "two are taken")
    assert set(worker.ids()) == {"middle", "late"}


async def test_what_is_not_acked_comes_again_and_is_not_fresh(worker: Worker) -> None:
    await queue(worker.bus, "R", urgency=0)
    await until(lambda: len(worker.taken) == 2, "it is taken, and comes again")
    assert [one["fresh"] for one in worker.taken] == [True, False]


@pytest.mark.parametrize(
    "headers",
    [b"", b"NATS/1.0\r\nNats-Msg-Id: nodot\r\n\r\n", b"NATS/1.0\r\nMs-Gateway: g\r\n\r\n",
     b"NATS/1.0\r\nNats-Msg-Id: R.x\r\nMs-Gateway: g\r\n\r\n",
     b"NATS/1.0\r\nNats-Msg-Id: R.0\r\nMs-Gateway: g\r\nMs-Deaths: many\r\n\r\n",
     b"NATS/1.0\r\nNats-Msg-Id: \xff\xfe.0\r\nMs-Gateway: g\r\n\r\n"],
)  # fmt: skip
async def test_what_names_nobody_is_dropped_and_counted(worker: Worker, headers: bytes) -> None:
    answer = await worker.bus.request(subjects.request(MODEL, 2), b"?", 5.0, headers)
    assert isinstance(parse_puback(answer), int)
    await until(lambda: worker.events["malformed"] == 1, "it is counted")
    await queue(worker.bus, "good")
    await until(lambda: worker.ids() == ["good"], "the next is taken")


@pytest.mark.parametrize("lose", [False, True])
async def test_it_pulls_again_after_a_restart(worker: Worker, nats: NatsServer, lose: bool) -> None:
    await asyncio.to_thread(nats.kill)
    await until(lambda: not worker.bus.connected, "it notices")
    if lose:
        shutil.rmtree(nats.directory / "jetstream")
    await asyncio.to_thread(nats.start)
    await until(lambda: worker.bus.connected, "it is back")
    await ensure_streams(worker.bus, 10)
    await queue(worker.bus, "after")
    await until(lambda: worker.ids() == ["after"], "it is taken")


async def test_somebody_else_s_stream_stops_the_start(nats: NatsServer) -> None:
    from nats.js.api import StorageType, StreamConfig

    worker = Worker(nats.url, 1)
    await worker.bus.start()
    await worker.bus.client.jetstream().add_stream(
        StreamConfig(name=subjects.STREAM, subjects=["ms.req.>"], storage=StorageType.MEMORY)
    )
    with pytest.raises(StreamConfigError, match="MS_REQ"):
        await worker.intake.start()
    await worker.bus.close()
