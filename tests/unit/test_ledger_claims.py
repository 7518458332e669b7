"""The worker's side: claims, and what may begin before they are granted."""

from __future__ import annotations

from array import array

import pytest

from shared import wire
from tests.unit.ledger_bench import BOOT, Case
from workers.ledger import CLAIM_LIMIT, Ledger
from workers.peers import LEASE, QUIET_AFTER


def test_a_first_delivery_starts_before_its_claim_is_granted() -> None:
    case = Case()
    exec_ = case.take()
    assert case.heard() == [wire.Claim(0, exec_, "w", 0)]
    assert [job.id for job in case.io.jobs] == [exec_]
    case.ledger.on_control(wire.Go(exec_, None))
    assert case.io.acks == [b"+ACK"]


@pytest.mark.parametrize(("attempt", "fresh"), [(1, True), (0, False)])
def test_what_may_have_killed_a_worker_waits_for_the_grant(attempt: int, fresh: bool) -> None:
    """Else it could kill every worker before one claim is out, and no death would be counted."""
    case = Case()
    exec_ = case.take(attempt=attempt, fresh=fresh)
    assert case.io.jobs == []
    assert case.ledger.at_work == 0
    case.ledger.on_control(wire.Go(exec_, None))
    assert [job.id for job in case.io.jobs] == [exec_]
    assert case.ledger.at_work == 1


@pytest.mark.parametrize(
    ("answer", "ack"),
    [(wire.Stop, b"+ACK"), (lambda e: wire.Later(e, 100), b'-NAK {"delay": 100000000}')],
)
def test_a_claim_that_is_refused(answer: type[wire.Stop], ack: bytes) -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(answer(exec_))
    assert case.io.acks == [ack]
    assert case.io.aborted == [exec_]
    assert (case.ledger.running, case.ledger.execs) == (0, {})


def test_a_refusal_that_comes_after_the_grant_is_late() -> None:
    """Of two claims the answers may cross; the exec speaks on, and its digest settles it."""
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.ledger.on_control(wire.Stop(exec_))
    assert case.ledger.running == 1


def test_a_claim_without_an_answer_is_said_again_and_given_back() -> None:
    case = Case()
    case.take()
    case.wait(CLAIM_LIMIT + 0.1)
    assert sum(isinstance(frame, wire.Claim) for frame in case.io.said) > 20
    assert case.io.acks.count(b"+WPI") > 20
    assert case.io.acks[-1].startswith(b"-NAK")
    assert case.ledger.settled


def test_a_silent_gateway_gets_its_requests_later_and_a_dead_one_never() -> None:
    case = Case()
    case.beat()
    case.wait(QUIET_AFTER + 0.1, beats=False)
    case.take()
    assert case.io.acks == [b'-NAK {"delay": 1000000000}']
    case.wait(LEASE, beats=False)
    case.take()
    assert case.io.acks[-1] == b"+TERM"
    assert case.io.said == []
    assert case.ledger.running == 0


def test_a_gateway_that_was_never_heard_gets_nothing_done_before_it_speaks() -> None:
    """It may have died long before this worker began."""
    case = Case()
    case.ledger = Ledger("w", BOOT, case.io)
    exec_ = case.take()
    assert case.io.jobs == []
    case.ledger.on_control(wire.Go(exec_, None))
    assert len(case.io.jobs) == 1


@pytest.mark.parametrize(
    ("here", "comes", "taken"),
    [(0, 0, True), (0, 2, True), (1, 1, True), (2, 0, True), (1, 2, False), (2, 2, False)],
)
def test_suspects_run_beside_no_other(here: int, comes: int, taken: bool) -> None:
    case = Case()
    body = wire.encode(wire.Request("R", 1, "g", "n", "m", "hi", None, None, wire.Sampling()))
    case.ledger.take("g", "R", 1, "ack", body, deaths=here)
    case.ledger.take("g", "S", 1, "ack", body, deaths=comes)
    assert case.ledger.running == 1 + taken
    assert case.io.acks == ([] if taken else [b'-NAK {"delay": 100000000}'])


def test_what_was_said_before_a_lost_claim_is_said_again() -> None:
    case = Case()
    exec_ = case.take()
    case.generate(exec_, 5, first=True)
    case.wait(0.1)
    case.heard()
    case.ledger.on_control(wire.Go(exec_, None))
    begun, chunk = case.heard()
    assert begun == wire.Begun(0, exec_, array("I", [1, 2]).tobytes(), 0, "print")
    assert chunk == wire.Chunk(0, exec_, 0, (5,), " 5")
