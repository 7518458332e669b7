"""Random scenarios from a seed, on a cluster that is mended between them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from millstream.nats_server import NatsServerError
from shared.errors import MillstreamError
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
    kills = sum(event.do == "kill" for event in events)
    # One server dies once at a time, and who falls with three workers is rightly held for poison.
    if broker > 1 or kills > 2:
        return scenario(seed + 1_000_003)
    return Scenario(
        tuple(sorted(events, key=lambda event: event.at)),
        streams=chance.choice((4, 8, 16)),
        tokens=TOKENS,
        workers=WORKERS,
        gateways=GATEWAYS,
    )


async def run(directory: Path, seeds: range) -> dict[int, str]:
    """Run scenarios one after the other; what went wrong, by seed.

    The next after one that went wrong has a new cluster: nobody knows what is left of the old one.
    """
    wrong: dict[int, str] = {}
    left = list(seeds)
    while left:
        async with Cluster(
            directory / f"from-{left[0]}",
            workers=WORKERS,
            gateways=GATEWAYS,
            worker_flags=("--max-batch", "8"),
        ) as cluster:
            fault = ""
            while left and not fault:
                seed = left.pop(0)
                fault = await _fault(scenario(seed), cluster)
            if fault:
                wrong[seed] = fault
    return wrong


async def _fault(one: Scenario, cluster: Cluster) -> str:
    """What goes wrong in a scenario, if anything."""
    try:
        async with asyncio.timeout(90):
            verify(await play(one, cluster))
            await mend(cluster)
            await cluster.quiet()
    except (AssertionError, TimeoutError, MillstreamError, NatsServerError) as error:
        return f"{error!r} in {one.events}"
    return ""


async def mend(cluster: Cluster) -> None:
    """Bring back what is dead or stopped, and wait until every gateway has answered."""
    for name, member in cluster.members.items():
        cluster.wake(name)
        assert member.process is not None
        if member.process.poll() is not None:
            cluster.restart(name)
    await cluster.all_ready()
    # One that slept may say that it serves before it sees that its connection to NATS went.
    verify([await cluster.ask(1, gateways=[name], retry=True) for name in cluster.targets])
