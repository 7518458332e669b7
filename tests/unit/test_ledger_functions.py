"""The worker's side of functions: items, windows, continuations, errors."""

from __future__ import annotations

import pytest

from shared import wire
from shared.errors import FunctionError
from tests.unit.ledger_bench import Case
from workers.engines.base import Job, Output


def items(job: Job, *given: bytes, finish: str | None = None) -> Output:
    return Output(job.id, [], "", [], items=given, finish=finish, completion_tokens=len(given))


def test_a_functions_call_reaches_the_engine_and_its_items_the_gateway() -> None:
    case = Case()
    exec_ = case.take(call=b"args", metadata=(("k", "v"),))
    case.ledger.on_control(wire.Go(exec_, 5000))
    (job,) = case.io.jobs
    assert (job.call, job.request_id, job.metadata) == (b"args", "name", (("k", "v"),))
    assert job.remaining is not None
    assert job.remaining() == pytest.approx(5.0)
    case.ledger.on_outputs([items(job, b"one", b"two", finish="stop")])
    said = [frame for frame in case.io.said if not isinstance(frame, wire.Claim)]
    assert said == [
        wire.Parts(0, exec_, 0, (b"\0one", b"\0two")),
        wire.Done(0, exec_, (2,), ("stop",), 2),
    ]


def test_a_function_waits_while_its_client_does_not_read() -> None:
    case = Case()
    exec_ = case.take(call=b"args")
    case.ledger.on_control(wire.Go(exec_, None))
    (job,) = case.io.jobs
    half = bytes(wire.WINDOW // 2)
    case.ledger.on_outputs([items(job, half)])
    assert case.io.windows == []
    case.ledger.on_outputs([items(job, half)])
    assert case.io.windows == [(exec_, False)]
    case.ledger.flush()
    parts = case.ledger.execs[exec_].publisher.totals[0]
    case.ledger.on_control(wire.Taken(exec_, parts))
    assert case.io.windows == [(exec_, False), (exec_, True)]


def test_what_its_client_has_not_taken_yet_counts_in_a_continuations_window() -> None:
    case = Case()
    exec_ = case.take(attempt=1, call=b"args", after_items=3, after_parts=5, untaken=wire.WINDOW)
    case.ledger.on_control(wire.Go(exec_, None))
    assert case.io.windows == [(exec_, False)]
    case.ledger.on_control(wire.Taken(exec_, 4))
    assert case.io.windows == [(exec_, False)]
    case.ledger.on_control(wire.Taken(exec_, 5))
    assert case.io.windows == [(exec_, False), (exec_, True)]


def test_a_continued_function_numbers_its_parts_from_where_the_client_is() -> None:
    case = Case()
    exec_ = case.take(attempt=1, call=b"args", after_items=3, after_parts=5)
    case.ledger.on_control(wire.Go(exec_, None))
    (job,) = case.io.jobs
    assert job.after_items == 3
    case.ledger.on_outputs([items(job, b"four")])
    assert case.io.said[-1] == wire.Parts(1, exec_, 5, (b"\0four",))


def test_what_a_function_raises_travels_whole() -> None:
    case = Case()
    exec_ = case.take(call=b"args")
    case.ledger.on_control(wire.Go(exec_, None))
    (job,) = case.io.jobs
    error = FunctionError("no such user", code=5, status=b"details")
    case.ledger.on_outputs([Output(job.id, [], "", [], error=error)])
    assert case.io.said[-1] == wire.Failed(
        0, exec_, "FunctionError", "no such user", code=5, status=b"details"
    )
