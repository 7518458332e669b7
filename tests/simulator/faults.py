"""A seed becomes a schedule: who runs, which requests come, and what goes wrong when."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulator.calls import LONG_MOST
from tests.simulator.clients import Reader
from tests.simulator.worker import Kind

FAULTS_FROM = 0.6
FAULTS_UNTIL = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: When.
        kind: What; see `Schedule` in schedule.py. After "tear:" what happens to a worker of
            functions as soon as it has said a part of an item, and not all of it.
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
        tokens: How many it wants, or items.
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
class Manner:
    """What a request is besides, where a function is called.

    Attributes:
        sizes: How long its items are; see `calls.SIZES`.
        burst: Items that it may give in one step.
        fails: Whether it raises after the last.
        late: Whether its end comes a step after its last item.
        reader: How its client reads.
    """

    sizes: str
    burst: int
    fails: bool
    late: bool
    reader: Reader


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a seed decides before the start.

    Attributes:
        manners: One an ask, where a function is called; drawn from a second stream of chance, so
            that a seed means the same requests and faults for every kind of model.
    """

    kind: Kind
    workers: int
    gateways: int
    slots: int
    step: float
    events: bool
    asks: tuple[Ask, ...]
    faults: tuple[Fault, ...]
    manners: tuple[Manner, ...]


KINDS: tuple[tuple[Kind, int], ...] = (("generation", 5), ("stream", 3), ("once", 2))

FAULTS = (
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


TEARS = (
    "kill_worker", "vanish_worker", "pause_worker", "pause_worker", "cut_worker", "dark_worker",
)  # fmt: skip
"""What happens to a worker of functions in the middle of an item."""


def plan(seed: int, kind: Kind | None = None) -> Plan:
    """Make a schedule, of a model of some kind or of the kind that the seed has it."""
    chance = random.Random(seed)
    workers = chance.choice((1, 2, 2, 3))
    gateways = chance.choice((1, 2))
    poison = chance.random() < 0.05
    asks = tuple(_ask(chance, gateways, poison and n == 2) for n in range(chance.randint(4, 14)))
    names, weights = zip(*FAULTS, strict=True)
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
    second = random.Random(f"manners {seed}")
    drawn = second.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    manners = tuple(_manner(second) for _ in asks)
    kind = kind or drawn
    if kind != "generation":
        faults += [_tear(second, workers) for _ in range(second.choice((0, 0, 1, 2)))]
    return Plan(
        kind=kind,
        workers=workers,
        gateways=gateways,
        slots=chance.choice((1, 2, 4)),
        step=chance.choice((0.02, 0.05)),
        events=chance.random() < 0.7,
        asks=asks,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        manners=manners,
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


def _manner(chance: random.Random) -> Manner:
    reader = chance.choice(
        (
            Reader(),
            Reader(None),
            Reader(chance.uniform(0.005, 0.08)),
            Reader(chance.choice((0.0, None)), chance.randint(0, 8), chance.uniform(0.3, 4.0)),
            Reader(0.0, 0, chance.uniform(2.0, 6.0)),
        )
    )
    return Manner(
        sizes=chance.choice(("small", "mixed", "mixed", "long", "long")),
        burst=chance.choice((1, 1, 2, 4)),
        fails=chance.random() < 0.08,
        late=chance.random() < 0.3,
        reader=reader,
    )


def _tear(chance: random.Random, workers: int) -> Fault:
    return Fault(
        at=chance.uniform(FAULTS_FROM, FAULTS_UNTIL - 2.5),
        kind=f"tear:{chance.choice(TEARS)}",
        target=chance.randrange(workers),
        seconds=chance.choice((0.3, 0.5, 0.8, 1.5, 2.5)),
    )


def items_of(ask: Ask, manner: Manner) -> int:
    """How many items a call is to give."""
    return min(ask.tokens, LONG_MOST) if manner.sizes == "long" else ask.tokens
