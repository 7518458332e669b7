"""Random scenarios from a seed, on a cluster that is mended between them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.faults.harness import Cluster, Event, Scenario, play, verify

WORKERS = 3
GATEWAYS = 2
TOKENS = 150


def scenario(seed: int) -> Scenario:
    """What goes wrong: one to three faults, each undone within the scenario."""
    chance = random.Random(seed)
    events: list[Event] = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.uniform(0.1, 1.2)
        back = at + chance.choice((0.1, 0.3, 0.8, 1.6))
        worker = f"w{chance.randrange(WORKERS)}"
        gateway = f"g{chance.randrange(GATEWAYS)}"
        events += chance.choice(
            (
                [Event(at, "kill", worker), Event(back, "restart", worker)],
                [Event(at, "freeze", worker), Event(back, "wake", worker)],
                [Event(at, "freeze", gateway), Event(back, "wake", gateway)],
                [Event(at, "nats_kill"), Event(at + 0.3, "nats_start")],
                [Event(at, "nats_lose"), Event(at + 0.3, "nats_start")],
                [Event(at, "nats_freeze"), Event(back, "nats_wake")],
            )
        )
    broker = sum(event.do == "nats_start" for event in events)
    if broker > 1:  # One server dies once at a time.
        return scenario(seed + 1_000_003)
    return Scenario(
        tuple(sorted(events, key=lambda event: event.at)),
        streams=chance.choice((4, 8, 16)),
        tokens=TOKENS,
        workers=WORKERS,
        gateways=GATEWAYS,
    )


async def run(directory: Path, seeds: range) -> dict[int, str]:
    """Run scenarios one after the other; what went wrong, by seed."""
    wrong: dict[int, str] = {}
    cluster = Cluster(
        directory, workers=WORKERS, gateways=GATEWAYS, worker_flags=("--max-batch", "8")
    )
    async with cluster:
        for seed in seeds:
            try:
                async with asyncio.timeout(90):
                    seen = await play(scenario(seed), cluster)
                    verify(seen)
                    await mend(cluster)
                    await cluster.quiet()
            except (AssertionError, TimeoutError) as error:
                wrong[seed] = f"{error!r} in {scenario(seed).events}"
                await mend(cluster)
    return wrong


async def mend(cluster: Cluster) -> None:
    """Bring back what is dead or stopped."""
    for name, member in cluster.members.items():
        cluster.wake(name)
        assert member.process is not None
        if member.process.poll() is not None:
            cluster.restart(name)
    await cluster.all_ready()
