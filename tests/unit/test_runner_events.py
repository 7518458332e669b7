"""What a worker's connection counts is among the events of its metrics."""

from __future__ import annotations

from shared.bus import Bus, BusOptions
from workers import acks
from workers.engines.sim.engine import SimEngine
from workers.engines.sim.options import SimOptions
from workers.runner import Runner
from workers.settings import WorkerSettings


async def test_what_could_not_be_sent_is_among_the_events() -> None:
    settings = WorkerSettings.model_validate({"engine": "sim"})
    engine, bus = SimEngine("sim", SimOptions()), Bus(BusOptions((), "w"))
    runner = Runner(settings, engine, bus, model="sim", died=lambda: None, boot=1)
    runner.ledger.events["cancelled"] += 1
    runner.ack("token", acks.ACK)
    assert runner.snapshot().events == {"cancelled": 1, "refused_send": 1}
