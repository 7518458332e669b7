"""The worker's side as a table of messages in and messages out."""

from __future__ import annotations

import pytest

from shared import wire
from tests.unit.ledger_bench import Case
from workers.ledger import DEADLINE_GRACE, RECORD_MOST
from workers.speaker import TERMINAL_EVERY


def test_the_last_word_is_repeated_until_it_is_closed() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.generate(exec_, 5, 6, finish="length", first=True)
    done = wire.Done(0, exec_, (2,), ("length",), 2)
    assert case.heard()[-1] == done
    assert (case.ledger.running, case.ledger.kept) == (0, 2)
    case.wait(TERMINAL_EVERY + 0.1)
    assert done in case.heard()
    case.ledger.on_control(wire.Closed((exec_,)))
    assert case.ledger.settled
    assert case.ledger.kept == 0


def test_a_cancel_is_answered_even_where_nothing_is_known() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.ledger.on_control(wire.Cancel(exec_, "g"))
    case.ledger.on_control(wire.Cancel(exec_, "g"))
    assert case.io.told == [wire.Ended(exec_), wire.Ended(exec_)]
    assert case.io.aborted == [exec_]
    case.generate(exec_, 5)
    assert not any(isinstance(frame, wire.Chunk) for frame in case.heard())


def test_the_deadline_counts_from_the_latest_claim() -> None:
    """An answer carries what is left at its own sending: from the first claim it would be early."""
    case = Case()
    exec_ = case.take()
    case.wait(1.0)
    case.ledger.on_control(wire.Go(exec_, 500))
    case.wait(0.4)
    assert case.ledger.running == 1
    case.wait(0.2 + DEADLINE_GRACE)
    assert case.ledger.running == 0
    failed = [frame for frame in case.io.said if isinstance(frame, wire.Failed)]
    assert failed[0].kind == "DeadlineExceeded"


def test_records_are_bounded() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.generate(exec_, *range(RECORD_MOST + 1), first=True)
    assert case.ledger.full
    case.generate(exec_, *range(RECORD_MOST))
    case.wait(0.05)
    assert any(isinstance(frame, wire.Released) for frame in case.io.said)


def test_a_drain_hands_back_what_runs_and_what_is_claimed() -> None:
    case = Case()
    running = case.take()
    case.ledger.on_control(wire.Go(running, None))
    case.generate(running, 5, first=True)
    case.take()
    case.heard()
    case.ledger.release()
    assert case.heard() == [
        wire.Released(0, running, (1,)), wire.Released(0, running + 1, (0,))
    ]  # fmt: skip
    assert case.io.acks == [b"+ACK", b"-NAK"]
    case.ledger.on_control(wire.Closed((running, running + 1)))
    assert case.ledger.settled


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"\x93", "InvalidRequest"), (wire.encode(wire.Echo(1)), "InvalidRequest")],
)
def test_a_request_that_cannot_be_read_fails_alone(body: bytes, kind: str) -> None:
    case = Case()
    case.ledger.take("g", "R", 0, "ack", body, fresh=True)
    failed = case.heard()[-1]
    assert isinstance(failed, wire.Failed)
    assert failed.kind == kind
    assert case.ledger.running == 0


def test_another_model_does_not_continue_an_answer() -> None:
    case = Case()
    case.take(attempt=1, fingerprint="another", delivered=((1,),))
    failed = case.heard()[-1]
    assert isinstance(failed, wire.Failed)
    assert failed.kind == "Unavailable"
    assert case.io.jobs == []


@pytest.mark.parametrize("frame", [wire.Echo(1), wire.Ended(4), wire.CancelAsk("", "x")])
def test_what_makes_no_sense_is_counted(frame: wire.Frame) -> None:
    case = Case()
    case.ledger.on_control(frame)
    assert case.ledger.events["malformed"] == 1
