"""Scenarios: what is asked, and what goes wrong when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.faults.harness.cluster import Cluster
from tests.faults.harness.processes import until
from tests.faults.harness.seen import Seen


@dataclass(frozen=True, slots=True)
class Event:
    """Something that goes wrong.

    Attributes:
        at: Seconds after all streams had begun to flow.
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
        streams: How many, spread over the gateways; the workers have room for all at once.
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
    start = time.monotonic()
    seen = [Seen(f"stream {number}", scenario.tokens, start) for number in range(scenario.streams)]
    tasks = [
        asyncio.create_task(cluster.follow(one, gateways=[names[number % len(names)]]))
        for number, one in enumerate(seen)
    ]
    # All of them: one that comes while NATS is away is refused, and rightly.
    await until(lambda: all(one.times or one.error for one in seen), "the streams flow")
    begun = time.monotonic()
    for event in scenario.events:
        await asyncio.sleep(max(0.0, begun + event.at - time.monotonic()))
        await strike(cluster, event)
    await asyncio.gather(*tasks)
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
    elif event.do == "nats_freeze":
        cluster.nats.pause()
    elif event.do == "nats_wake":
        cluster.nats.resume()
    else:
        {
            "kill": cluster.kill,
            "terminate": cluster.terminate,
            "freeze": cluster.freeze,
            "wake": cluster.wake,
            "restart": cluster.restart,
        }[event.do](event.target)
