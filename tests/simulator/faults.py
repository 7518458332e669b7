"""A seed becomes a schedule: who runs, which requests come, and what goes wrong when."""

from __future__ import annotations

import random
from dataclasses import dataclass

FAULTS_FROM = 0.6
FAULTS_UNTIL = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: When.
        kind: What; see `Schedule.run` in run.py.
        target: Which worker or gateway, by number.
        seconds: How long, until the restart, the waking, the clearing up.
        lose: Whether a broker loses its storage.
    """

    at: float
    kind: str
    target: int = 0
    seconds: float = 1.0
    lose: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A client's request.

    Attributes:
        at: When.
        gateway: Whom it asks.
        tokens: How many it wants.
        leaves: Seconds after which it goes, or None.
        deadline: Its deadline in seconds, or None.
        urgency: Its class.
        poison: Whether it kills every worker at its first step.
    """

    at: float
    gateway: int
    tokens: int
    leaves: float | None
    deadline: float | None
    urgency: int
    poison: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a seed decides before the start."""

    workers: int
    gateways: int
    slots: int
    step: float
    events: bool
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]


KINDS = (
    ("kill_worker", 4),
    ("vanish_worker", 2),
    ("pause_worker", 3),
    ("hang_engine", 2),
    ("drain_worker", 2),
    ("cut_worker", 2),
    ("dark_worker", 2),
    ("pause_gateway", 2),
    ("kill_gateway", 1),
    ("cut_gateway", 2),
    ("dark_gateway", 1),
    ("broker", 2),
    ("drops", 3),
    ("storm", 3),
)


def plan(seed: int) -> Plan:
    """Make a schedule."""
    chance = random.Random(seed)
    workers = chance.choice((1, 2, 2, 3))
    gateways = chance.choice((1, 2))
    poison = chance.random() < 0.05
    asks = tuple(_ask(chance, gateways, poison and n == 2) for n in range(chance.randint(4, 14)))
    names, weights = zip(*KINDS, strict=True)
    count = chance.choice((0, 1, 2, 2, 3, 4, 6))
    faults = [
        Fault(
            at=chance.uniform(FAULTS_FROM, FAULTS_UNTIL - 1.5),
            kind=kind,
            target=chance.randrange(workers if "worker" in kind or "engine" in kind else gateways),
            seconds=chance.choice((0.05, 0.3, 0.8, 1.5, 2.5, 4.0)),
            lose=chance.random() < 0.5,
        )
        for kind in chance.choices(names, weights, k=count)
    ]
    return Plan(
        workers=workers,
        gateways=gateways,
        slots=chance.choice((1, 2, 4)),
        step=chance.choice((0.02, 0.05)),
        events=chance.random() < 0.7,
        asks=asks,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _ask(chance: random.Random, gateways: int, poison: bool) -> Ask:
    return Ask(
        at=chance.uniform(0.5, 2.5),
        gateway=chance.randrange(gateways),
        tokens=chance.choice((1, 10, 40, 80, 80)),
        leaves=chance.uniform(0.0, 2.0) if chance.random() < 0.2 else None,
        deadline=chance.uniform(0.2, 3.0) if chance.random() < 0.1 else None,
        urgency=chance.choice((1, 2, 2, 3)),
        poison=poison,
    )
