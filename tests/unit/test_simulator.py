"""Seeded schedules of the whole protocol, and proof that the checker sees a broken rule.

`MILLSTREAM_SCHEDULES=10000 pytest tests/unit/test_simulator.py` runs more of them, on all cores.
A seed's model is a generation, a function that streams, or one that must never run twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gateway import answer
from gateway.answer import Answer
from gateway.items import Items
from gateway.session import Session, State
from shared import wire
from tests.simulator.engines import FunctionEngine
from tests.simulator.faults import plan
from tests.simulator.known import FUNCTIONS, REGRESSIONS
from tests.simulator.run import run_many, run_seed
from tests.simulator.schedule import Schedule
from tests.simulator.worker import Kind
from workers.digests import Round
from workers.execution import Execution
from workers.ledger import Ledger
from workers.peers import Peer, Peers

SCHEDULES = int(os.environ.get("MILLSTREAM_SCHEDULES", "300"))
Break = Callable[[pytest.MonkeyPatch], None]


def test_schedules() -> None:
    processes = (os.cpu_count() or 1) if SCHEDULES > 1000 else 1
    bad = run_many(range(SCHEDULES), processes)
    assert not bad, f"{len(bad)} of {SCHEDULES}; python -m tests.simulator.run 1 --seed N: {bad}"


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_once_went_wrong(seed: int) -> None:
    assert run_seed(seed, "generation") == [], REGRESSIONS[seed]


@pytest.mark.parametrize(("kind", "seed"), FUNCTIONS)
def test_what_once_went_wrong_with_a_function(kind: Kind, seed: int) -> None:
    assert run_seed(seed, kind) == [], FUNCTIONS[kind, seed]


@pytest.mark.parametrize("kind", ["generation", "stream", "once"])
def test_a_seed_is_a_schedule(kind: Kind) -> None:
    one, two = Schedule(7, plan(7, kind)), Schedule(7, plan(7, kind))
    one.run()
    two.run()
    assert [client.got for client in one.clients] == [client.got for client in two.clients]
    assert [worker.engine.log for worker in one.every_worker] == [
        worker.engine.log for worker in two.every_worker
    ]
    assert one.world.now == two.world.now


def test_seeds_have_every_kind_of_model_and_ask_the_same_of_each() -> None:
    assert {plan(seed).kind for seed in range(20)} == {"generation", "stream", "once"}
    text, function = plan(7, "generation"), plan(7, "once")
    assert text.asks == function.asks
    assert set(text.faults) <= set(function.faults)


# ---- the checker sees what is broken -----------------------------------------------------------


def _no_fencing(patch: pytest.MonkeyPatch) -> None:
    def chunk(self: Session, chunk: wire.Chunk, now: float) -> None:
        if self.state is State.BOUND and not self.answer.on_chunk(chunk, now):
            self._after(now)

    patch.setattr(Session, "chunk", chunk)


def _no_fencing_of_tokens(patch: pytest.MonkeyPatch) -> None:
    def token(self: Session, _exec: int, index: int, token: int, message: bytes) -> bool:
        return self.state is State.BOUND and self.answer.on_token(index, token, message)

    patch.setattr(Session, "token", token)


def _tokens_in_any_order(patch: pytest.MonkeyPatch) -> None:
    on_token = Answer.on_token

    def next_one(self: Answer, _index: int, token: int, message: bytes) -> bool:
        return on_token(self, self.lanes[0].frontier, token, message)

    patch.setattr(Answer, "on_token", next_one)


def _forwarded_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    on_token = Answer.on_token

    def forgetting(self: Answer, index: int, token: int, message: bytes) -> bool:
        forwarded = on_token(self, index, token, message)
        if forwarded:
            self.lanes[0].delivered[-1] = 0
        return forwarded

    patch.setattr(Answer, "on_token", forgetting)


def _a_second_reason_to_tick(patch: pytest.MonkeyPatch) -> None:
    bind = Session._bind

    def binding(self: Session, exec_: int, worker: str, now: float) -> None:
        bind(self, exec_, worker, now)
        self.due = now + 1.0

    patch.setattr(Session, "_bind", binding)


def _the_gap_before_the_end_is_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Answer, "on_done", lambda self, done, _now: setattr(self, "done", done))


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
    due = Peers.due

    def only_full(self: Peers, now: float) -> Iterator[tuple[Peer, Round]]:
        return ((peer, round_) for peer, round_ in due(self, now) if peer.execs)

    patch.setattr(Peers, "due", only_full)


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


def _half_an_item_survives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Items, "freeze", Answer.freeze)


def _delivered_is_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Items, "frontiers", Answer.frontiers)


def _lost_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Items, "frontiers", (0,))


def _no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FunctionEngine, "window", lambda *_: None)


def _windows_add_up(patch: pytest.MonkeyPatch) -> None:
    continuation = Items.continuation

    def unrestrained(self: Items, request: wire.Request) -> wire.Request:
        return replace(continuation(self, request), untaken=0)

    patch.setattr(Items, "continuation", unrestrained)


def _one_item_too_few(patch: pytest.MonkeyPatch) -> None:
    continuation = Items.continuation

    def skipping(self: Items, request: wire.Request) -> wire.Request:
        request = continuation(self, request)
        return replace(request, after_items=request.after_items + 1)

    patch.setattr(Items, "continuation", skipping)


def _eager_once(patch: pytest.MonkeyPatch) -> None:
    def start(self: Ledger, execution: Execution, request: wire.Request, *, eager: bool) -> None:
        self._start(execution, request)

    patch.setattr(Ledger, "_start_or_wait", start)


def _once_more(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.router.ONCE", "never")


BROKEN: dict[str, Break] = {
    "any exec may speak": _no_fencing,
    "any exec may have its tokens forwarded": _no_fencing_of_tokens,
    "a token is forwarded whichever is next": _tokens_in_any_order,
    "what was forwarded is not told to a continuation": _forwarded_is_forgotten,
    "something is due while bound, without a gap": _a_second_reason_to_tick,
    "what is missing at the end is no gap": _the_gap_before_the_end_is_none,
    "what came early outlives its exec": _no_freezing,
    "a continuation is not told what was delivered": _no_delivered_tokens,
    "what was delivered is not sliced off": _no_slicing,
    "a lost attempt is not missed": _no_audit,
    "no lease": _no_lease,
    "nothing is repaired by digests": _no_repair_by_digest,
    "digests only while something runs": _no_empty_digests,
    "a replaced exec may return": _reprieve_of_the_replaced,
}


BROKEN_FUNCTIONS: dict[str, tuple[Kind, Break]] = {
    "half an item outlives its exec": ("stream", _half_an_item_survives),
    "delivered counts as taken": ("stream", _delivered_is_taken),
    "what was taken is not repaired by digests": ("stream", _lost_taken),
    "a function yields while its window is closed": ("stream", _no_window),
    "every failover opens another window": ("stream", _windows_add_up),
    "a continuation passes over one item too many": ("stream", _one_item_too_few),
    "what must not run twice starts before its claim is granted": ("once", _eager_once),
    "what must not run twice may, while nothing was delivered": ("once", _once_more),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[rule](monkeypatch)
    assert _seen("generation"), f"1500 schedules saw nothing wrong with: {rule}"


@pytest.mark.parametrize("rule", BROKEN_FUNCTIONS)
def test_a_rule_broken_for_functions_is_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, broken = BROKEN_FUNCTIONS[rule]
    broken(monkeypatch)
    assert _seen(kind), f"1500 schedules saw nothing wrong with: {rule}"


def _seen(kind: Kind) -> bool:
    for seed in range(1500):
        try:
            if run_seed(seed, kind):
                return True
        except (AttributeError, KeyError, RecursionError):
            return True
    return False
