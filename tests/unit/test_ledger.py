"""The worker's side as a table of messages in and messages out."""

from __future__ import annotations

from array import array
from itertools import accumulate

import pytest

from shared import wire
from shared.errors import FunctionError
from workers.engines.base import Job, Output
from workers.ledger import (
    CLAIM_LIMIT,
    DEADLINE_GRACE,
    LINK_LIMIT,
    RECORD_MOST,
    Ledger,
)
from workers.peers import DIGEST_EVERY, LEASE, QUIET_AFTER
from workers.speaker import TERMINAL_EVERY

BOOT = 9


class Io:
    """Writes down what the ledger asks; its clock is set by hand."""

    def __init__(self) -> None:
        self.time = 100.0
        self.said: list[wire.Frame] = []
        self.told: list[wire.Frame] = []
        self.acks: list[bytes] = []
        self.jobs: list[Job] = []
        self.aborted: list[int] = []
        self.windows: list[tuple[int, bool]] = []

    def say(self, subject: str, frame: bytes) -> None:
        self.said.append(wire.decode(frame))

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        self.told.append(frame)

    def ack(self, token: str, how: bytes) -> None:
        self.acks.append(how)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def abort(self, exec_: int) -> None:
        self.aborted.append(exec_)

    def window(self, exec_: int, is_open: bool) -> None:
        self.windows.append((exec_, is_open))

    def flush_later(self) -> None:
        pass

    def freed(self) -> None:
        pass

    def now(self) -> float:
        return self.time


class Case:
    """A ledger with its port."""

    def __init__(self) -> None:
        self.io = Io()
        self.ledger = Ledger("w", BOOT, self.io)
        self.ledger.fingerprint = "print"
        self._taken = 0
        self.slices = True
        self.beat()

    def take(
        self, name: str = "R", *, attempt: int = 0, fresh: bool = True, **changes: object
    ) -> int:
        fields = {"sampling": wire.Sampling(max_tokens=9), **changes}
        request = wire.Request(
            name,
            attempt,
            "g",
            "name",
            "m",
            "hi",
            None,
            None,
            **fields,  # type: ignore[arg-type]
        )
        self.ledger.take("g", name, attempt, "ack", wire.encode(request), fresh=fresh)
        self._taken += 1
        return (BOOT << 31) + self._taken

    def beat(self) -> None:
        self.ledger.on_gateway_beat(wire.GatewayBeat("g", slices=self.slices))

    def wait(self, seconds: float, *, beats: bool = True) -> None:
        until = self.io.time + seconds
        while self.io.time < until:
            self.io.time += 0.02
            if beats:
                self.beat()
            self.ledger.tick()

    def generate(
        self, exec_: int, *ids: int, finish: str | None = None, first: bool = False
    ) -> None:
        text = "".join(f" {token}" for token in ids)
        ends = list(accumulate(len(f" {token}") for token in ids))
        output = Output(exec_, list(ids), text, ends, finish=finish, completion_tokens=len(ids))
        if first:
            output.prompt_ids = (1, 2)
        self.io.time += 0.01
        self.ledger.on_outputs([output])

    def heard(self) -> list[wire.Frame]:
        said, self.io.said = self.io.said, []
        return said


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


def test_the_lease_of_a_silent_gateway_ends_its_requests() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.wait(LEASE - 0.1)
    assert case.ledger.running == 1
    case.wait(0.2)
    assert (case.ledger.running, case.io.aborted) == (0, [exec_])
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    case.wait(1.0)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)][len(digests) :]
    assert digests, "its absence from a digest is how the gateway learns of it"
    assert digests[-1].entries == ()


def test_a_long_digest_goes_out_in_slices() -> None:
    case = Case()
    execs = [case.take(f"R{number}") for number in range(150)]
    for exec_ in execs:
        case.ledger.on_control(wire.Go(exec_, None))
    case.wait(DIGEST_EVERY + 0.2)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    round_ = digests[-3:]
    assert [len(digest.entries) for digest in round_] == [64, 64, 22]
    assert [entry.exec for digest in round_ for entry in digest.entries] == execs
    first = round_[0].seq
    assert [(digest.seq, digest.began, digest.last) for digest in round_] == [
        (first, first, False), (first + 1, first, False), (first + 2, first, True),
    ]  # fmt: skip


def test_a_gateway_that_knows_no_slices_gets_all_in_one() -> None:
    case = Case()
    case.slices = False
    for number in range(150):
        case.ledger.on_control(wire.Go(case.take(f"R{number}"), None))
    case.wait(DIGEST_EVERY + 0.2)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    assert len(digests[-1].entries) == 150
    assert digests[-1].last


def test_the_slices_of_a_round_follow_each_other_whoever_else_is_told() -> None:
    case = Case()
    for number in range(150):
        case.ledger.on_control(wire.Go(case.take(f"R{number}"), None))
    told: list[tuple[str, int]] = []

    def tell(gateway: str, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Digest):
            told.append((gateway, frame.seq))

    case.io.tell = tell  # type: ignore[method-assign]
    for _ in range(200):
        case.ledger.on_gateway_beat(wire.GatewayBeat("other", slices=True))
        case.wait(0.02)
    mine = [seq for gateway, seq in told if gateway == "g"]
    assert len({gateway for gateway, _ in told}) == 2
    rounds = [mine[place : place + 3] for place in range(0, len(mine) - 2, 3)]
    assert all(last - first == 2 for first, _, last in rounds), rounds


def test_a_stall_of_this_process_is_held_against_nobody() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.wait(0.5)
    case.io.time += 30.0
    case.ledger.tick()
    assert case.ledger.running == 1


def test_without_its_link_a_worker_gives_up() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.ledger.link_lost()
    case.wait(LINK_LIMIT - 0.1)
    assert case.ledger.running == 1
    case.wait(0.2)
    assert case.ledger.settled


def test_an_answer_to_a_digest_frees_the_record_and_cancels() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    for token in range(4):
        case.generate(exec_, token, first=token == 0)
    case.ledger.on_control(wire.DigestReply("g", 1, (), ((exec_, (3,)),), ()))
    assert case.ledger.kept == 1
    case.ledger.on_control(wire.DigestReply("g", 2, (exec_,), (), ()))
    assert case.ledger.settled
    assert case.ledger.kept == 0


def test_a_digest_that_crosses_a_claim_cancels_nothing() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.DigestReply("g", 1, (exec_,), (), ()))
    assert case.ledger.running == 1


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


# ---- functions --------------------------------------------------------------------------------


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
