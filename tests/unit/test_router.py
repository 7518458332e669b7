"""The router as a table: who is bound where, and what follows from verdicts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.admission import Admission
from gateway.ports import Summary, TextOnly
from gateway.router import ORPHAN_LIMIT, Router
from gateway.session import Session, State
from gateway.suspects import DEATH_AFTER
from shared import wire
from shared.errors import (
    DuplicateRequest,
    MillstreamError,
    Overloaded,
    PoisonRequest,
    Unavailable,
)
from shared.ticks import TICK


def card(fingerprint: str = "print", *features: str) -> wire.ModelCard:
    return wire.ModelCard("m", "sim", 99, 99, "none", fingerprint, features or ("resume",), 4)


class Out(TextOnly):
    """A client."""

    def __init__(self) -> None:
        self.end: Summary | MillstreamError | None = None
        self.messages: list[bytes] = []
        self.on_message: Callable[[], None] = lambda: None

    def forward(self, message: bytes) -> None:
        self.messages.append(message)
        self.on_message()

    def started(self, worker: str) -> None:
        pass

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
        pass

    def finished(self, summary: Summary) -> None:
        self.end = summary

    def failed(self, error: MillstreamError) -> None:
        self.end = error


class Case:
    """A router with its port; workers that beat unless they are in `silent`."""

    def __init__(self, *workers: str) -> None:
        self.time = 100.0
        self.router = Router("g", self, queue_seconds=60.0)
        self.published: list[wire.Request] = []
        self.told: list[tuple[str, wire.Frame]] = []
        self.unqueued: list[tuple[str, int]] = []
        self.asked = 0
        self.silent: set[str] = set()
        self._beat_at = 0.0
        self._boots: dict[str, int] = {}
        for worker in workers:
            self.announce(worker)

    # ---- router.Io ------------------------------------------------------------------------------

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        self.published.append(request)
        done(len(self.published))

    def unqueue(self, request_id: str, attempt: int, urgency: int, sequence: int) -> None:
        self.unqueued.append((request_id, attempt))

    def audit(
        self, request_id: str, attempt: int, urgency: int, sequence: int,
        done: Callable[[bool], None],
    ) -> None:  # fmt: skip
        done(True)

    def tell(self, worker: str, frame: wire.Frame) -> None:
        self.told.append((worker, frame))

    def echo(self, frame: wire.Echo) -> None:
        self.router.on_worker(frame)

    def ask_announcements(self) -> None:
        self.asked += 1

    def now(self) -> float:
        return self.time

    # ---- what happens ---------------------------------------------------------------------------

    def announce(self, worker: str, **changes: Any) -> None:
        boot = self._boots.setdefault(worker, len(self._boots) + 1)
        name = worker.split("-")[0]
        fields = {"state": "ready", "model": "m", "card": card(), **changes}
        self.router.on_announce(wire.Announce(worker, boot, name, **fields))

    def run(self, seconds: float) -> None:
        until = self.time + seconds
        while self.time < until:
            self.time += TICK
            if self.time - self._beat_at >= 0.1:
                self._beat_at = self.time
                for worker in self._boots.keys() - self.silent:
                    if worker in self.router.fleet.workers:
                        self.router.on_heartbeat(wire.Heartbeat(worker, 0, "m", "ready", 0, 0, 4))
            self.router.tick()

    def open(self, name: str = "R", **changes: Any) -> tuple[Session, Out]:
        out = Out()
        request = wire.Request(
            name, 0, "g", f"client-{name}", "m", "hi", None, None, wire.Sampling(), **changes
        )
        return self.router.open(request, out, deadline=None), out

    def exec_of(self, worker: str, number: int = 1) -> int:
        return (self._boots[worker] << 31) + number

    def claim(self, name: str, worker: str, attempt: int = 0, number: int = 1) -> wire.Frame | None:
        self.told.clear()
        claim = wire.Claim(attempt, self.exec_of(worker, number), worker, 0)
        self.router.on_reply(name, claim)
        answers = [frame for who, frame in self.told if who == worker]
        return answers[-1] if answers else None

    def begin(self, name: str, worker: str, tokens: int = 1) -> None:
        exec_ = self.exec_of(worker)
        ids = array("I", [1]).tobytes()
        self.router.on_reply(name, wire.Begun(0, exec_, ids, 0, "print"))
        for index in range(tokens):
            self.router.on_reply(name, wire.Chunk(0, exec_, index, (index,), "x"))

    def digest(self, worker: str, seq: int, *entries: wire.DigestEntry) -> wire.DigestReply:
        self.told.clear()
        self.router.on_worker(wire.Digest(worker, seq, entries))
        (reply,) = [frame for _, frame in self.told if isinstance(frame, wire.DigestReply)]
        return reply


def test_a_token_whose_message_is_ready_is_forwarded_to_its_client() -> None:
    case = Case("a")
    session, out = case.open(ready=True)
    case.claim("R", "a")
    frame = wire.encode_token(case.exec_of("a"), 1, 5, "x")
    assert frame is not None
    assert not case.router.on_token("R", frame), "nothing came before it"
    case.begin("R", "a")
    assert case.router.on_token("R", frame)
    assert out.messages == [frame[wire.TOKEN_HEAD :]]
    assert session.answer.frontiers == (2,)
    assert not case.router.on_token("other", frame)


def test_a_client_that_cannot_take_a_token_is_through() -> None:
    case = Case("a")
    session, out = case.open(ready=True)
    out.on_message = lambda: session.fail(Overloaded("slow"))
    case.claim("R", "a")
    case.begin("R", "a")
    frame = wire.encode_token(case.exec_of("a"), 1, 5, "x")
    assert frame is not None
    assert case.router.on_token("R", frame)
    assert isinstance(out.end, Overloaded)
    assert not case.router.sessions
    assert not case.router.on_token("R", frame)


def test_a_request_ends_and_leaves_nothing() -> None:
    case = Case("a")
    _, out = case.open()
    exec_ = case.exec_of("a")
    assert case.claim("R", "a") == wire.Go(exec_, None)
    case.begin("R", "a", 2)
    case.router.on_reply("R", wire.Done(0, exec_, (2,), ("length",), 2))
    assert isinstance(out.end, Summary)
    case.run(0.1)
    assert ("a", wire.Closed((exec_,))) in case.told
    assert case.router.idle


def test_a_name_runs_once_a_tenant() -> None:
    case = Case("a")
    session, _ = case.open()
    with pytest.raises(DuplicateRequest):
        case.open()
    case.open("S", tenant="other")
    case.router.close(session)
    case.open()


def test_a_claim_of_nobody_known_is_not_granted() -> None:
    """Bound to who is not watched, the request would never be missed."""
    case = Case("a")
    session, _ = case.open()
    case.router.fleet.forget("a")
    assert case.claim("R", "a") is None
    assert case.asked == 1
    case.announce("a")
    assert isinstance(case.claim("R", "a"), wire.Go)
    assert session.worker == "a"


def test_a_claim_of_who_has_not_said_what_it_serves_is_not_granted() -> None:
    case = Case()
    case.announce("w1", state="loading", card=None)
    session, _ = case.open()
    assert case.claim("R", "w1") is None
    asked = case.asked
    case.announce("w1", card=card("print", "once"))
    assert isinstance(case.claim("R", "w1"), wire.Go)
    assert not session.repeatable
    assert asked


@pytest.mark.parametrize("cause", ["disconnect", "hung"])
def test_a_claim_of_who_is_lost_is_put_off(cause: str) -> None:
    case = Case("a")
    case.open()
    worker = case.router.fleet.workers["a"]
    worker.lost, worker.lost_cause = case.time, cause
    assert isinstance(case.claim("R", "a"), wire.Later)


def test_a_lost_worker_s_requests_go_to_another() -> None:
    case = Case("a", "b")
    session, _ = case.open()
    case.claim("R", "a")
    case.begin("R", "a", 3)
    case.router.on_disconnect("a")
    resume = case.published[-1]
    assert (resume.attempt, resume.urgency, resume.delivered) == (1, 0, ((0, 1, 2),))
    assert resume.deaths == 1
    assert isinstance(case.claim("R", "b", attempt=1), wire.Go)
    assert ("a", wire.Cancel(case.exec_of("a"), "g")) in case.told
    assert session.worker == "b"


def test_without_a_successor_they_wait_for_one() -> None:
    case = Case("a")
    session, _ = case.open()
    case.claim("R", "a")
    case.silent.add("a")
    case.router.on_disconnect("a")
    case.run(0.5)
    assert session.worker == "a"
    case.announce("b")
    case.run(0.1)
    assert session.state is State.QUEUED


def test_or_for_its_return() -> None:
    case = Case("a")
    session, _ = case.open()
    case.claim("R", "a")
    case.silent.add("a")
    case.router.on_disconnect("a")
    case.run(ORPHAN_LIMIT / 2)
    case.silent.clear()
    case.run(ORPHAN_LIMIT)
    assert (session.state, session.attempt, session.suspects) == (State.BOUND, 0, [])


def test_its_digest_gives_it_back_what_nobody_took() -> None:
    case = Case("a", "b")
    session, _ = case.open()
    case.claim("R", "a")
    case.silent.add("a")
    case.router.on_disconnect("a")
    case.silent.clear()
    entry = wire.DigestEntry("R", case.exec_of("a"), (0,), False)
    reply = case.digest("a", 1, entry)
    assert (session.state, session.worker, session.suspects) == (State.BOUND, "a", [])
    assert case.unqueued == [("R", 1)]
    assert reply.cancel == ()


def test_a_hung_engine_gets_nothing_back() -> None:
    """Its process lives and lists the exec; given back, the request would hang for good."""
    case = Case("a", "b")
    session, _ = case.open()
    case.claim("R", "a")
    (verdict,) = case.router.fleet.disconnected("a", "", case.time)
    case.router._lose(verdict, case.time)
    case.router.fleet.workers["a"].lost_cause = "hung"
    reply = case.digest("a", 1, wire.DigestEntry("R", case.exec_of("a"), (0,), False))
    assert session.state is State.QUEUED
    assert reply.cancel == ()


def test_an_exec_that_a_later_digest_does_not_list_is_gone() -> None:
    case = Case("a")
    session, _ = case.open()
    case.claim("R", "a")
    case.digest("a", 0)
    assert session.attempt == 0, "it was sent before the claim"
    case.digest("a", 1)
    assert session.attempt == 1


def test_only_all_slices_of_a_digest_tell_that_an_exec_is_gone() -> None:
    case = Case("a")
    sessions = [case.open(name)[0] for name in "QRS"]
    for number, name in enumerate("QRS", 1):
        case.claim(name, "a", number=number)
    first, second, _ = [
        wire.DigestEntry(name, case.exec_of("a", number), (0,), False)
        for number, name in enumerate("QRS", 1)
    ]

    def attempts() -> list[int]:
        return [session.attempt for session in sessions]

    case.router.on_worker(wire.Digest("a", 1, (first,), 0, False))
    assert attempts() == [0, 0, 0], "the round goes on"
    case.router.on_worker(wire.Digest("a", 3, (), 1, True))
    assert attempts() == [0, 0, 0], "a slice of it is missing"
    case.router.on_worker(wire.Digest("a", 4, (first,), 0, False))
    case.router.on_worker(wire.Digest("a", 5, (second,), 4, True))
    assert attempts() == [0, 0, 1]


def test_what_was_claimed_during_a_round_is_not_missed_by_it() -> None:
    case = Case("a")
    session, _ = case.open()
    case.router.on_worker(wire.Digest("a", 1, (), 0, False))
    claim = wire.Claim(0, case.exec_of("a"), "a", 1)
    case.router.on_reply("R", claim)
    case.router.on_worker(wire.Digest("a", 2, (), 1, True))
    assert session.attempt == 0
    case.digest("a", 3)
    assert session.attempt == 1


def test_an_overtaken_digest_says_nothing() -> None:
    case = Case("a")
    case.digest("a", 5)
    case.told.clear()
    case.router.on_worker(wire.Digest("a", 4, ()))
    assert case.told == []


def test_a_digest_is_answered_exec_by_exec() -> None:
    case = Case("a")
    case.open()
    case.claim("R", "a")
    case.begin("R", "a", 2)
    mine = case.exec_of("a")
    reply = case.digest(
        "a", 1, wire.DigestEntry("R", mine, (2,), False), wire.DigestEntry("X", 7, (4,), False),
        wire.DigestEntry("Y", 8, (4,), True),
    )  # fmt: skip
    assert (reply.acked, reply.cancel, reply.closed) == (((mine, (2,)),), (7,), (8,))


def test_what_a_digest_sent_and_is_not_here_is_asked_for() -> None:
    case = Case("a")
    case.open()
    case.claim("R", "a")
    case.begin("R", "a", 2)
    case.digest("a", 1, wire.DigestEntry("R", case.exec_of("a"), (5,), True))
    assert ("a", wire.Resend(case.exec_of("a"), 0, 2)) in case.told


@pytest.mark.parametrize("served", [True, False])
def test_only_the_model_that_began_continues(served: bool) -> None:
    case = Case("a", "b")
    _, out = case.open()
    case.claim("R", "a")
    case.begin("R", "a", 2)
    case.router.on_disconnect("a")
    if served:
        case.announce("c")
    case.announce("b", card=card("another"))
    answer = case.claim("R", "b", attempt=1)
    if served:
        assert isinstance(answer, wire.Later)
        assert out.end is None
    else:
        assert isinstance(answer, wire.Stop)
        assert isinstance(out.end, Unavailable)


@pytest.mark.parametrize(
    ("features", "structured", "continues"),
    [
        (("resume",), None, True),
        (("chat",), None, False),
        (("resume",), wire.Structured("regex", "a+"), False),
        (("resume", "resume_structured"), wire.Structured("regex", "a+"), True),
    ],
)
def test_what_cannot_be_replayed_is_not(
    features: tuple[str, ...], structured: wire.Structured | None, continues: bool
) -> None:
    case = Case("b")
    case.announce("a", card=card("print", *features))
    _, out = case.open(structured=structured)
    case.claim("R", "a")
    case.begin("R", "a", 2)
    case.router.on_disconnect("a")
    assert (out.end is None) == continues
    if not continues:
        assert isinstance(out.end, Unavailable)
        assert "2 tokens" in out.end.message


def test_poison_is_what_dies_alone_for_the_third_time() -> None:
    case = Case("a-1", "b-1", "c-1", "d-1")
    session, out = case.open()
    for attempt, worker in enumerate(("a-1", "b-1", "c-1")):
        assert isinstance(case.claim("R", worker, attempt=attempt), wire.Go)
        case.silent.add(worker)
        case.router.on_disconnect(worker)
    assert session.state is State.HELD, "a cut connection is no death yet"
    case.run(DEATH_AFTER + 0.5)
    assert isinstance(out.end, PoisonRequest)
    assert case.router.idle


def test_who_returns_clears_what_it_ran() -> None:
    case = Case("a-1", "b-1", "c-1", "d-1")
    session, out = case.open()
    for attempt, worker in enumerate(("a-1", "b-1", "c-1")):
        case.claim("R", worker, attempt=attempt)
        case.silent.add(worker)
        case.router.on_disconnect(worker)
    case.silent.discard("c-1")
    case.run(DEATH_AFTER + 0.5)
    assert out.end is None
    assert len(session.suspects) == 2
    assert session.state is State.QUEUED


def test_a_restart_proves_a_death() -> None:
    case = Case("a-1", "b-1", "c-1", "d-1")
    _, out = case.open()
    for attempt, worker in enumerate(("a-1", "b-1", "c-1")):
        case.claim("R", worker, attempt=attempt)
        case.silent.add(worker)
        case.router.on_disconnect(worker)
    case.announce("c-2")
    assert isinstance(out.end, PoisonRequest)


def test_a_stopped_gateway_reads_before_it_judges() -> None:
    case = Case("a", "b")
    session, _ = case.open()
    case.claim("R", "a")
    case.begin("R", "a")
    case.router.on_reply("R", wire.Chunk(0, case.exec_of("a"), 2, (2,), "x"))
    case.run(0.1)
    case.time += 5.0
    case.router.tick()
    case.run(0.1)
    assert session.attempt == 0
    assert case.router.events["stalled"] == 1


def test_a_cancel_is_repeated_until_it_is_answered() -> None:
    case = Case("a")
    session, _ = case.open()
    case.claim("R", "a")
    case.told.clear()
    case.router.close(session)
    case.run(0.3)
    cancels = [frame for _, frame in case.told if isinstance(frame, wire.Cancel)]
    assert len(cancels) > 3
    case.router.on_worker(wire.Ended(case.exec_of("a")))
    case.told.clear()
    case.run(0.3)
    assert not any(isinstance(frame, wire.Cancel) for _, frame in case.told)
    assert case.router.idle


def test_a_wait_that_is_too_long_is_refused_at_once() -> None:
    admission = Admission()
    now = 0.0
    for _ in range(20):  # Ten a second are taken, each runs for half a second.
        now += 0.1
        admission.waits("m", 2)
        admission.taken("m", 2, now)
        admission.done("m", 0.5)
    admission.check("m", 2, 1.0, now)
    for _ in range(10):
        admission.waits("m", 2)
    admission.check("m", 2, 2.5, now)
    admission.check("m", 1, 0.7, now)
    with pytest.raises(Overloaded) as refusal:
        admission.check("m", 2, 1.5, now)
    assert refusal.value.retry_after == pytest.approx(1.0, rel=0.2)
    admission.check("other", 2, 0.0, now)
    for _ in range(10):
        admission.left("m", 2)
    admission.check("m", 2, 0.1, now)


@pytest.mark.parametrize("frame", [wire.Go(1, None), wire.Echo(3), wire.CancelAsk("", "x")])
def test_what_makes_no_sense_is_counted(frame: wire.Frame) -> None:
    case = Case("a")
    case.open()
    case.router.on_reply("R", frame)
    assert case.router.events["malformed"] == 1
