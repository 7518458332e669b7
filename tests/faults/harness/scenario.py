"""Scenarios: what is asked, and what goes wrong when."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

from tests.faults.harness.cluster import Cluster
from tests.faults.harness.processes import until
from tests.faults.harness.seen import Seen


@dataclass(frozen=True, slots=True)
class Event:
    """Something that goes wrong.

    Attributes:
        at: Seconds after the streams began to flow.
        do: kill, freeze, wake, terminate, restart; nats_kill, nats_lose (its storage too),
            nats_start, nats_freeze, nats_wake.
        target: Whom it hits.
    """

    at: float
    do: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Streams, and what goes wrong while they flow.

    Attributes:
        streams: How many, spread over the gateways.
        tokens: Each.
        events: In the order of their times.
        workers: How many.
        gateways: How many.
        engine: Engine arguments.
        each: More of them by worker.
    """

    events: tuple[Event, ...]
    streams: int = 8
    tokens: int = 150
    workers: int = 2
    gateways: int = 1
    engine: tuple[str, ...] = ("step_ms=10", "mode=chain")
    each: tuple[tuple[str, tuple[str, ...]], ...] = ()


async def play(scenario: Scenario, cluster: Cluster) -> list[Seen]:
    """Run a scenario on a cluster that stands; what the clients saw."""
    names = sorted(cluster.targets)
    tasks = [
        asyncio.create_task(
            cluster.ask(
                scenario.tokens, prompt=f"stream {number}", gateways=[names[number % len(names)]]
            )
        )
        for number in range(scenario.streams)
    ]
    start = time.monotonic()
    await until(lambda: cluster.running > 0, "the streams run")
    begun = time.monotonic()
    for event in scenario.events:
        await asyncio.sleep(max(0.0, begun + event.at - time.monotonic()))
        await strike(cluster, event)
    seen = await asyncio.gather(*tasks)
    assert time.monotonic() - start < 120
    return seen


async def strike(cluster: Cluster, event: Event) -> None:
    """Let one event happen."""
    if event.do == "nats_kill":
        await asyncio.to_thread(cluster.nats.kill)
    elif event.do == "nats_start":
        cluster.nats.start()
    elif event.do == "nats_lose":
        await asyncio.to_thread(cluster.nats.kill)
        cluster.lose_storage()
    elif event.do in ("nats_freeze", "nats_wake"):
        if cluster.nats.process is not None:
            stop = event.do == "nats_freeze"
            cluster.nats.process.send_signal(signal.SIGSTOP if stop else signal.SIGCONT)
    else:
        {
            "kill": cluster.kill,
            "terminate": cluster.terminate,
            "freeze": cluster.freeze,
            "wake": cluster.wake,
            "restart": cluster.restart,
        }[event.do](event.target)
