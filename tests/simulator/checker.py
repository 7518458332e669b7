"""What must hold at the end of a schedule, of what the clients saw and of what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import DeadlineExceeded, Overloaded, PoisonRequest, Unavailable
from tests.simulator.clients import Client
from tests.simulator.parts import POISON
from workers.engines.sim import chain_broken

if TYPE_CHECKING:
    from tests.simulator.run import Schedule

STOPS_WITHIN = 3.4
"""A lease, which begins anew at a reconnect, and the reconnect."""
STOPS_WITHIN_CALM = 0.2
DEATHS = 3
MOST_CRASHES = 6


def check(schedule: Schedule) -> list[str]:
    """Every violation, in words."""
    found: list[str] = []
    for client in schedule.clients:
        found += [f"{client.name}: {violation}" for violation in _client(schedule, client)]
    if schedule.crashes > MOST_CRASHES:
        found.append(f"a poison request killed {schedule.crashes} workers")
    found += _overtime(schedule)
    found += [f"left behind: {what}" for what in schedule.left_behind()]
    return found


def _client(schedule: Schedule, client: Client) -> list[str]:
    found = list(client.breaks)
    if not client.over:
        found.append(f"never ended, with {len(client.tokens)} of {client.wanted} tokens")
    place = chain_broken(client.prompt, client.tokens)
    if place is not None:
        found.append(f"the chain breaks at {place} of {len(client.tokens)}")
    summary = client.summary
    if summary is not None and not (
        len(client.tokens) == client.wanted == summary.completion_tokens
    ):
        found.append(f"done with {len(client.tokens)} of {client.wanted}: {summary}")
    if client.error is not None and not _allowed(schedule, client):
        found.append(f"failed with {client.error!r}")
    return found


def _allowed(schedule: Schedule, client: Client) -> bool:
    """Whether the schedule explains an error; none may for trouble that a failover mends."""
    error = client.error
    if isinstance(error, PoisonRequest):
        died = schedule.deaths + (schedule.crashes if schedule.deaths else 0)
        return client.prompt[0] == POISON or died >= DEATHS
    if isinstance(error, Overloaded | DeadlineExceeded):
        return client.deadline is not None
    away = any(
        fault.kind in ("broker", "cut_gateway", "dark_gateway", "kill_gateway", "storm", "drops")
        for fault in schedule.plan.faults
    )
    return isinstance(error, Unavailable) and away and not client.tokens


def _overtime(schedule: Schedule) -> list[str]:
    """Nothing keeps generating for a client that left."""
    calm = not schedule.plan.faults
    found = []
    for worker in schedule.every_worker:
        for time, exec_ in worker.engine.log:
            client = schedule.by_id[worker.requests[exec_]]
            if client.gone is None:
                continue
            since = client.gone if calm else max(client.gone, schedule.faults_end)
            if time > since + (STOPS_WITHIN_CALM if calm else STOPS_WITHIN):
                found.append(f"{client.name} left at {client.gone:.3f}, generated at {time:.3f}")
                break
    return found
