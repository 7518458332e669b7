"""Seeded schedules of the whole protocol, and proof that the checker sees a broken rule.

`MILLSTREAM_SCHEDULES=10000 pytest tests/unit/test_simulator.py` runs more of them, on all cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway import answer
from gateway.answer import Answer
from gateway.session import Session, State
from shared import wire
from tests.simulator.known import REGRESSIONS
from tests.simulator.run import Schedule, run_many, run_seed
from workers.execution import Execution
from workers.peers import DIGEST_EVERY, Peer, Peers

SCHEDULES = int(os.environ.get("MILLSTREAM_SCHEDULES", "300"))
Break = Callable[[pytest.MonkeyPatch], None]


def test_schedules() -> None:
    processes = (os.cpu_count() or 1) if SCHEDULES > 1000 else 1
    bad = run_many(range(SCHEDULES), processes)
    assert not bad, f"{len(bad)} of {SCHEDULES}; python -m tests.simulator.run 1 --seed N: {bad}"


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_once_went_wrong(seed: int) -> None:
    assert run_seed(seed) == [], REGRESSIONS[seed]


def test_a_seed_is_a_schedule() -> None:
    one, two = Schedule(7), Schedule(7)
    assert one.run() == two.run()
    assert [client.tokens for client in one.clients] == [client.tokens for client in two.clients]
    assert one.world.now == two.world.now


# ---- the checker sees what is broken -----------------------------------------------------------


def _no_fencing(patch: pytest.MonkeyPatch) -> None:
    def chunk(self: Session, chunk: wire.Chunk, now: float) -> None:
        if self.state is State.BOUND and not self.answer.on_chunk(chunk, now):
            self._after(now)

    patch.setattr(Session, "chunk", chunk)


def _no_freezing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Answer, "freeze", lambda _self: None)


def _no_delivered_tokens(patch: pytest.MonkeyPatch) -> None:
    def request(self: Session) -> wire.Request:
        return replace(self.request, attempt=self.attempt, urgency=0 if self.attempt else 2)

    patch.setattr(Session, "_attempt_request", request)


def _no_slicing(patch: pytest.MonkeyPatch) -> None:
    def on_chunk(self: Answer, chunk: wire.Chunk, now: float) -> bool:
        self._deliver(self.lanes[chunk.choice], chunk, now)
        return False

    patch.setattr(answer.Answer, "on_chunk", on_chunk)


def _no_audit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "audited", lambda *_: None)


def _no_lease(patch: pytest.MonkeyPatch) -> None:
    def lapsed(_self: Peers, _now: float) -> list[Execution]:
        return []

    patch.setattr(Peers, "lapsed", lapsed)


def _no_repair_by_digest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Answer, "compare", lambda *_: None)
    patch.setattr("workers.speaker.TERMINAL_EVERY", 1e9)


def _no_empty_digests(patch: pytest.MonkeyPatch) -> None:
    def due(self: Peers, now: float) -> list[Peer]:
        found = [peer for peer in self if peer.execs and now >= peer.digest_due]
        for peer in found:
            peer.digest_due = now + DIGEST_EVERY
        return found

    patch.setattr(Peers, "due", due)


def _reprieve_of_the_replaced(patch: pytest.MonkeyPatch) -> None:
    claimed = Session.claimed

    def keeping(self: Session, claim: wire.Claim, now: float) -> None:
        fenced = self.fenced
        claimed(self, claim, now)
        self.fenced = self.fenced or fenced

    def reprieve(self: Session, exec_: int, now: float) -> bool:
        fenced = self.fenced
        if fenced is None or fenced.exec != exec_:
            return False
        self.attempt, self.fenced = fenced.attempt, None
        self._bind(exec_, fenced.worker, now)
        return True

    patch.setattr(Session, "claimed", keeping)
    patch.setattr(Session, "reprieve", reprieve)


BROKEN: dict[str, Break] = {
    "any exec may speak": _no_fencing,
    "what came early outlives its exec": _no_freezing,
    "a continuation is not told what was delivered": _no_delivered_tokens,
    "what was delivered is not sliced off": _no_slicing,
    "a lost attempt is not missed": _no_audit,
    "no lease": _no_lease,
    "nothing is repaired by digests": _no_repair_by_digest,
    "digests only while something runs": _no_empty_digests,
    "a replaced exec may return": _reprieve_of_the_replaced,
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[rule](monkeypatch)
    for seed in range(1500):
        try:
            found = run_seed(seed)
        except (AttributeError, KeyError, RecursionError):
            return
        if found:
            return
    pytest.fail(f"1500 schedules saw nothing wrong with: {rule}")
