"""What must hold at the end of a schedule, of what the clients saw and of what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared import wire
from shared.errors import (
    DeadlineExceeded,
    FunctionError,
    Overloaded,
    PoisonRequest,
    Unavailable,
)
from tests.simulator.calls import ITEM_MOST
from tests.simulator.clients import CallClient, Client

if TYPE_CHECKING:
    from tests.simulator.schedule import Schedule

STOPS_WITHIN = 3.4
"""A lease, which begins anew at a reconnect, and the reconnect."""
STOPS_WITHIN_CALM = 0.2
DEATHS = 3
MOST_CRASHES = 6
HELD_MOST = wire.WINDOW + ITEM_MOST + 2 * wire.ITEM_OVERHEAD
"""Bytes of a call's record at a worker: the item that filled the window may be a long one."""
KEPT_MOST = HELD_MOST + wire.WINDOW
"""Bytes at a gateway for a client that does not read."""
TROUBLE = ("broker", "cut_gateway", "dark_gateway", "kill_gateway", "storm", "drops")
"""What may keep a request from being queued at all."""


def check(schedule: Schedule) -> list[str]:
    """Every violation, in words."""
    found: list[str] = []
    for client in schedule.clients:
        found += [f"{client.name}: {violation}" for violation in _client(schedule, client)]
    if schedule.crashes > MOST_CRASHES:
        found.append(f"a poison request killed {schedule.crashes} workers")
    found += _overtime(schedule)
    found += _repeated(schedule)
    found += _memory(schedule)
    found += [f"left behind: {what}" for what in schedule.left_behind()]
    return found


def _client(schedule: Schedule, client: Client) -> list[str]:
    found = list(client.breaks)
    if not client.over:
        found.append(f"never ended, with {client.got} of {client.wanted}")
    wrong = client.wrong()
    if wrong:
        found.append(wrong)
    summary = client.summary
    if summary is not None and not (client.got == client.wanted == summary.completion_tokens):
        found.append(f"done with {client.got} of {client.wanted}: {summary}")
    if client.error is not None and not _allowed(schedule, client):
        found.append(f"failed with {client.error!r} after {client.got}")
    return found


def _allowed(schedule: Schedule, client: Client) -> bool:
    """Whether the schedule explains an error; none may for trouble that a failover mends."""
    error = client.error
    if isinstance(error, PoisonRequest):
        died = schedule.deaths + (schedule.crashes if schedule.deaths else 0)
        return client.poison or died >= DEATHS
    if isinstance(error, Overloaded | DeadlineExceeded):
        return client.deadline is not None
    if isinstance(error, FunctionError):
        return isinstance(client, CallClient) and client.call.fails
    if not isinstance(error, Unavailable):
        return False
    if schedule.plan.kind == "once" and (schedule.plan.faults or schedule.crashes):
        lost = f"the worker was lost after {client.got} items"
        if str(error).startswith(lost):
            return True
    return any(fault.kind in TROUBLE for fault in schedule.plan.faults) and not client.got


def _overtime(schedule: Schedule) -> list[str]:
    """Nothing keeps generating for a client that left, or whose call was given up."""
    calm = not schedule.plan.faults
    found = []
    for worker in schedule.every_worker:
        for time, exec_ in worker.engine.log:
            client = schedule.by_id[worker.requests[exec_]]
            gone = client.gone
            if gone is None and schedule.plan.kind != "generation":
                gone = client.failed_at
            if gone is None:
                continue
            since = gone if calm else max(gone, schedule.faults_end)
            if time > since + (STOPS_WITHIN_CALM if calm else STOPS_WITHIN):
                found.append(f"{client.name} left at {gone:.3f}, generated at {time:.3f}")
                break
    return found


def _repeated(schedule: Schedule) -> list[str]:
    """What must never run twice is started once at most, anywhere."""
    if schedule.plan.kind != "once":
        return []
    return [
        f"{request} was started {count} times"
        for request, count in schedule.starts.items()
        if count > 1
    ]


def _memory(schedule: Schedule) -> list[str]:
    """A client that does not read costs bounded memory."""
    found = [
        f"{worker.name} held {worker.most_held} bytes of one call"
        for worker in schedule.every_worker
        if worker.most_held > HELD_MOST
    ]
    found += [
        f"{client.name}: its gateway kept {client.most} bytes"
        for client in schedule.clients
        if isinstance(client, CallClient) and client.most > KEPT_MOST
    ]
    return found
