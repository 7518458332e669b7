"""Schedules that once went wrong, and rules without which some schedule does."""

from __future__ import annotations

from tests.simulator.worker import Kind

REGRESSIONS: dict[int, str] = {
    4178: "a claim that came after its worker was forgotten bound the request to nobody",
    6128: "the same, with the disconnect event and the restart in another order",
    1071: "a gateway that is killed while it is stopped never takes the request in its socket",
    221: "a worker that gave up its execs by itself must say so by a digest without them",
    35: "the lease of a dead gateway ends what runs for it",
    72: "a claim without an answer is not work: with it in hand no engine is stuck",
    12029: "two gateways' suspects ran beside each other, and the innocent one died thrice",
    12538: "a worker that never heard of a dead gateway generated for its request",
    58241: "a worker that wakes and reconnects gives a dead gateway one more lease, and no more",
    57: "an attempt that a late ack took out of a new storage is found missing and queued anew",
}
"""Seeds, and what was wrong with a generation. They run in every suite."""

FUNCTIONS: dict[tuple[Kind, int], str] = {
    ("once", 1335): "a worker of which was known only that it loads was held for one that may "
    "repeat what must not run twice, and its requests ran twice",
    ("once", 1557): "the same",
    ("stream", 75): "each failover gave a client that does not read another window",
    ("stream", 236): "the same, over two failovers",
}
"""The same for functions."""
