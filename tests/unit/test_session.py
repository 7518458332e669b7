"""The session as a table of messages in and messages out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.answer import GAP_LIMIT
from gateway.lane import EARLY_MOST
from gateway.ports import Summary, TextOnly
from gateway.session import PUBLISH_LIMIT, Session, State
from millstream.v1 import inference_pb2 as pb
from shared import wire
from shared.errors import EngineError, MillstreamError, Overloaded, RequestTooLarge, Unavailable

PROMPT = (1, 2, 3)
EXEC, OTHER = 100, 200


class Port:
    """Writes down what the session asks."""

    def __init__(self) -> None:
        self.published: list[wire.Request] = []
        self.told: list[tuple[str, wire.Frame]] = []
        self.unqueued: list[tuple[int, int]] = []
        self.audits: list[int] = []
        self.cancelled: list[int] = []
        self.closed: list[int] = []
        self.events: list[str] = []

    def publish(self, session: Session, request: wire.Request) -> None:
        self.published.append(request)

    def unqueue(self, session: Session, attempt: int, sequence: int) -> None:
        self.unqueued.append((attempt, sequence))

    def audit(self, session: Session, attempt: int, sequence: int) -> None:
        self.audits.append(attempt)

    def tell(self, worker: str, frame: wire.Frame) -> None:
        self.told.append((worker, frame))

    def cancel(self, worker: str, exec_: int) -> None:
        self.cancelled.append(exec_)

    def close_exec(self, worker: str, exec_: int) -> None:
        self.closed.append(exec_)

    def count(self, event: str) -> None:
        self.events.append(event)


class Out(TextOnly):
    """Writes down what the client gets."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.ends: list[Summary | MillstreamError] = []
        self.starts = 0
        self.forwarded = 0

    def started(self, worker: str) -> None:
        self.starts += 1

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        assert not self.ends
        assert index == len(self.tokens)
        self.tokens.extend(ids)
        self.text += text

    def forward(self, message: bytes) -> None:
        """A token that needed no chunk."""
        delta = pb.GenerateResponse.FromString(message).delta
        self.forwarded += 1
        self.delta(delta.index, delta.token_ids, delta.text, delta.choice, delta.attempt, None)

    def finished(self, summary: Summary) -> None:
        self.ends.append(summary)

    def failed(self, error: MillstreamError) -> None:
        self.ends.append(error)


class Case:
    """A session with its ports."""

    def __init__(self, *, deadline: float | None = None, n: int = 1) -> None:
        self.port, self.out = Port(), Out()
        request = wire.Request(
            "ULID", 0, "g", "name", "m", "hi", None, None, wire.Sampling(max_tokens=9, n=n)
        )
        self.session = Session(
            request, self.port, self.out, now=0.0, deadline=deadline, queue_seconds=60.0
        )
        self.session.open(0.0)

    def bound(self) -> Case:
        self.session.published(0, 1, 0.0)
        self.claim(0, EXEC)
        self.begun(EXEC)
        return self

    def claim(self, attempt: int, exec_: int, now: float = 0.0, worker: str = "w") -> None:
        self.session.claimed(wire.Claim(attempt, exec_, worker, 5), now)

    def begun(self, exec_: int, attempt: int = 0) -> None:
        ids = array("I", PROMPT).tobytes()
        self.session.began(wire.Begun(attempt, exec_, ids, 0, "print"), 0.0)

    def chunk(self, index: int, count: int = 1, exec_: int = EXEC, now: float = 0.0) -> None:
        ids = tuple(range(index, index + count))
        text = "".join(f" {token}" for token in ids)
        ends = [0]
        for token in ids:
            ends.append(ends[-1] + len(f" {token}"))
        frame = wire.Chunk(0, exec_, index, ids, text, None if count == 1 else tuple(ends[1:]))
        self.session.chunk(frame, now)

    def token(self, index: int, exec_: int = EXEC, now: float = 0.0) -> bool:
        """A token whose message is ready, as the router hands it on; whether it was forwarded."""
        data = wire.encode_token(exec_, index, index, f" {index}")
        assert data is not None
        if self.session.token(exec_, index, index, data[wire.TOKEN_HEAD :]):
            return True
        self.chunk(index, 1, exec_, now)
        return False

    def done(self, total: int, exec_: int = EXEC, now: float = 0.0) -> None:
        self.session.done(wire.Done(0, exec_, (total,), ("length",), total), now)

    def answers(self) -> list[wire.Frame]:
        told, self.port.told = self.port.told, []
        return [frame for _, frame in told]


def test_the_first_exec_is_bound_and_every_other_stopped() -> None:
    case = Case()
    case.session.published(0, 1, 0.0)
    case.claim(0, EXEC)
    case.claim(0, OTHER)
    case.claim(0, EXEC)
    case.claim(1, OTHER)
    assert case.answers() == [
        wire.Go(EXEC, None), wire.Stop(OTHER), wire.Go(EXEC, None), wire.Stop(OTHER)
    ]  # fmt: skip
    assert case.out.starts == 1


def test_go_carries_what_is_left_of_the_deadline() -> None:
    case = Case(deadline=2.0)
    case.claim(0, EXEC, now=0.5)
    case.claim(0, EXEC, now=3.0)
    assert case.answers() == [wire.Go(EXEC, 1500), wire.Go(EXEC, 0)]


def test_a_claim_may_overtake_the_answer_of_the_publish() -> None:
    case = Case()
    case.claim(0, EXEC)
    case.session.published(0, 7, 0.1)
    assert case.session.state is State.BOUND


@pytest.mark.parametrize(
    ("outcome", "at", "ends"),
    [
        (Overloaded("full"), 0.0, Overloaded),
        (RequestTooLarge.of(9, 8), 0.0, RequestTooLarge),
        (Unavailable("away"), 0.0, None),
        (Unavailable("away"), PUBLISH_LIMIT + 0.1, Unavailable),
        (None, 1.0, None),
        (None, PUBLISH_LIMIT + 0.1, Unavailable),
    ],
)
def test_a_publish_that_fails(
    outcome: MillstreamError | None, at: float, ends: type[MillstreamError] | None
) -> None:
    case = Case()
    case.session.published(0, outcome, at)
    assert [type(end) for end in case.out.ends] == ([ends] if ends else [])


def test_a_publish_that_is_answered_after_the_end_is_taken_back() -> None:
    case = Case()
    case.session.abandon()
    case.session.published(0, 12, 1.0)
    assert case.port.unqueued == [(0, 12)]
    assert case.out.ends == []


def test_early_chunks_wait_and_what_is_missing_is_asked_for() -> None:
    case = Case().bound()
    case.answers()
    case.chunk(0)
    case.chunk(2)
    case.chunk(3)
    assert case.answers() == [wire.Resend(EXEC, 0, 1)]
    case.chunk(1)
    assert case.out.tokens == [0, 1, 2, 3]
    assert case.session.due is None


def test_done_waits_for_the_frontier() -> None:
    case = Case().bound()
    case.chunk(0)
    case.done(3)
    assert case.out.ends == []
    case.chunk(1, 2)
    (summary,) = case.out.ends
    assert isinstance(summary, Summary)
    assert (summary.prompt_tokens, summary.completion_tokens, summary.attempts) == (3, 3, 1)
    assert case.port.closed == [EXEC]


def test_nothing_is_delivered_before_the_prompt_is_known() -> None:
    """Else a failover could not continue: the tokens would be the client's and nobody's."""
    case = Case()
    case.session.published(0, 1, 0.0)
    case.claim(0, EXEC)
    case.answers()
    case.chunk(0)
    case.chunk(1)
    assert case.out.tokens == []
    assert case.answers() == [wire.Resend(EXEC, 0, 0, True)]
    case.begun(EXEC)
    assert case.out.tokens == [0, 1]


def test_a_gap_that_nobody_fills_is_a_failover() -> None:
    case = Case().bound()
    case.chunk(0)
    case.chunk(2)
    now = 0.0
    while case.session.state is State.BOUND:
        now += 0.05
        case.chunk(5, now=now)  # More of the same keeps coming.
        case.session.tick(now)
        assert now < 2 * GAP_LIMIT
    assert now > GAP_LIMIT
    assert case.port.cancelled == [EXEC]
    assert case.port.published[-1].delivered == ((0,),)


def test_a_continuation_carries_everything_that_was_delivered() -> None:
    case = Case().bound()
    case.chunk(0, 3)
    case.chunk(4)
    case.session.fail_over(1.0, "silent")
    request = case.port.published[-1]
    assert (request.attempt, request.urgency, request.token_ids) == (1, 0, PROMPT)
    assert request.delivered == ((0, 1, 2),)
    assert request.fingerprint == "print"
    case.chunk(3, exec_=EXEC)
    assert case.out.tokens == [0, 1, 2], "the fenced exec was heard"
    case.claim(1, OTHER)
    assert case.port.cancelled == [EXEC], "its predecessor must end"
    case.chunk(2, 3, exec_=OTHER)
    assert case.out.tokens == [0, 1, 2, 3, 4]
    assert case.out.text == " 0 1 2 3 4"


def test_a_fenced_exec_is_reprieved_until_its_successor_is_bound() -> None:
    case = Case().bound()
    case.chunk(0)
    case.session.fail_over(1.0, "silent")
    case.session.published(1, 44, 1.0)
    assert case.session.reprieve(EXEC, 1.1)
    assert case.port.unqueued == [(1, 44)]
    case.claim(1, OTHER)
    assert case.answers()[-1] == wire.Stop(OTHER)
    case.chunk(1)
    assert case.out.tokens == [0, 1]
    case.session.fail_over(2.0, "silent")
    assert case.port.published[-1].attempt == 2, "a void attempt's number is never used again"
    case.claim(2, OTHER)
    assert not case.session.reprieve(EXEC, 2.1)


@pytest.mark.parametrize("how", ["gap", "released"])
def test_who_gave_up_gets_no_reprieve(how: str) -> None:
    case = Case().bound()
    if how == "released":
        case.session.released(wire.Released(0, EXEC, (0,)), 1.0)
        assert case.port.closed == [EXEC]
    else:
        case.session.fail_over(1.0, how, final=True)
    assert not case.session.reprieve(EXEC, 1.1)


@pytest.mark.parametrize(
    ("resumable", "repeatable", "tokens", "goes_on"),
    [(True, True, 2, True), (False, True, 0, True), (False, True, 2, False),
     (False, False, 0, False)],
)  # fmt: skip
def test_what_cannot_be_continued(
    resumable: bool, repeatable: bool, tokens: int, goes_on: bool
) -> None:
    case = Case().bound()
    case.session.resumable, case.session.repeatable = resumable, repeatable
    for index in range(tokens):
        case.chunk(index)
    case.session.fail_over(1.0, "silent")
    if goes_on:
        assert case.session.state is State.PUBLISHING
    else:
        (error,) = case.out.ends
        assert isinstance(error, Unavailable)
        assert f"{tokens} tokens" in error.message
        assert error.retry_after is not None


def test_a_held_request_waits_for_its_verdict() -> None:
    case = Case().bound()
    case.session.fail_over(1.0, "silent", hold=True)
    assert (case.session.state, len(case.port.published)) == (State.HELD, 1)
    case.claim(0, OTHER)
    assert case.answers()[-1] == wire.Stop(OTHER)
    case.session.unhold(2.0)
    assert case.port.published[-1].attempt == 1


def test_an_attempt_that_is_lost_is_queued_anew() -> None:
    case = Case()
    case.session.published(0, 5, 0.0)
    assert case.session.due is not None
    case.session.tick(case.session.due)
    assert case.port.audits == [0]
    case.session.audited(0, True, 1.1)
    case.session.audited(0, False, 1.2)
    case.session.audited(0, False, 1.3)
    assert [request.attempt for request in case.port.published] == [0, 1]


def test_a_speaker_whose_claim_is_under_way_is_left_alone() -> None:
    """It began before its claim was heard: cancelled, the request would wait for an audit."""
    case = Case()
    case.chunk(0)
    assert case.port.cancelled == []
    case.bound()
    case.chunk(0, exec_=OTHER)
    assert case.port.cancelled == [OTHER]


def test_the_engine_of_a_request_fails_it() -> None:
    case = Case().bound()
    case.session.failed(wire.Failed(0, OTHER, "EngineError", "no"))
    assert case.out.ends == []
    case.session.failed(wire.Failed(0, EXEC, "EngineError", "out of memory"))
    (error,) = case.out.ends
    assert isinstance(error, EngineError)


def test_leaving_cancels_both_the_exec_and_the_fenced_one() -> None:
    case = Case().bound()
    case.session.fail_over(1.0, "silent")
    case.session.published(1, 44, 1.0)
    case.session.abandon()
    assert case.port.unqueued == [(1, 44)]
    assert case.port.cancelled == [EXEC]
    assert case.out.ends == []


@pytest.mark.parametrize(
    "frame",
    [
        wire.Chunk(0, EXEC, 0, (1,), " 1", None, choice=1),
        wire.Chunk(0, EXEC, 0, (1,), " 1", None, choice=-1),
        wire.Chunk(0, EXEC, 0, (1 << 32,), " 1", None),
        wire.Chunk(0, EXEC, 0, (-1, 5), " 1", (1, 2)),
    ],
)
def test_a_malformed_chunk_is_counted(frame: wire.Chunk) -> None:
    case = Case().bound()
    case.session.chunk(frame, 0.0)
    assert "malformed" in case.port.events
    assert case.out.tokens == []


def test_a_token_is_forwarded_where_nothing_else_is_to_be_done() -> None:
    case = Case().bound()
    assert not case.token(0), "the first one's time is noted"
    assert case.token(1)
    assert not case.token(1), "it was there already"
    assert not case.token(3), "the one before is missing"
    assert not case.token(2), "one waits for it"
    assert case.token(4)
    assert not case.token(5, exec_=OTHER), "who may not speak"
    case.done(6)
    assert not case.token(5), "the end waits for it"
    assert case.out.tokens == list(range(6))
    assert case.out.forwarded == 2
    assert not case.token(6)
    assert isinstance(case.out.ends[0], Summary)


def test_nothing_is_forwarded_before_the_prompt_is_known() -> None:
    case = Case()
    case.session.published(0, 1, 0.0)
    case.claim(0, EXEC)
    assert not case.token(0)
    assert not case.token(1)
    assert case.out.tokens == []


def test_what_was_forwarded_is_not_generated_again() -> None:
    case = Case().bound()
    for index in range(4):
        case.token(index)
    case.session.fail_over(1.0, "silent", final=True)
    assert case.port.published[-1].delivered == ((0, 1, 2, 3),)


def test_what_waits_is_bounded() -> None:
    case = Case().bound()
    for index in range(1, EARLY_MOST * 2):
        case.chunk(index)
    assert len(case.session.answer.lanes[0].early) == EARLY_MOST


@settings(max_examples=200)
@given(st.data())
def test_any_order_any_grouping_any_repetition(data: st.DataObject) -> None:
    """Whatever arrives, tokens come out once, in order, and Done only when all have."""
    total = data.draw(st.integers(1, 12))
    case = Case().bound()
    spans = data.draw(
        st.lists(st.tuples(st.integers(0, total - 1), st.integers(1, 4)), max_size=20)
    )
    done_at = data.draw(st.integers(0, len(spans)))
    for place, (start, length) in enumerate(spans):
        if place == done_at:
            case.done(total)
        if length == 1 and data.draw(st.booleans()):
            case.token(start)
        else:
            case.chunk(start, min(length, total - start))
        assert case.out.tokens == list(range(len(case.out.tokens)))
        if case.out.ends:
            break
    complete = len(case.out.tokens) == total
    assert bool(case.out.ends) == (complete and done_at < len(spans))
    for index in range(total):  # The repair that the session asked for.
        case.chunk(index)
    case.done(total)
    assert case.out.tokens == list(range(total))
    assert len(case.out.ends) == 1
