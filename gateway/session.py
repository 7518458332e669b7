"""One request's life at the gateway: a pure state machine (see docs/protocol.md).

Time and messages go in by method calls, what follows goes out through two ports (`gateway.ports`):
`Wire` towards NATS and `Outlet` towards the client. No I/O and no clock of its own, so that the
simulator runs the very code that serves.

    PUBLISHING -> QUEUED -> BOUND -> ENDED
        ^                     |
        '------ fence --------'   attempt + 1, with the tokens delivered so far
                (HELD in between, where it must be known first whether its worker died)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from gateway.answer import RESEND_EVERY, Answer
from gateway.items import Items
from gateway.lane import Lane
from gateway.ports import Outlet, Summary, Wire
from shared import wire
from shared.errors import MillstreamError, Overloaded, RequestTooLarge, Unavailable

__all__ = ["Outlet", "Session", "State", "Summary", "Wire"]

PUBLISH_RETRY = 1.0
PUBLISH_AGAIN = 0.2
PUBLISH_LIMIT = 5.0
AUDIT_FIRST = 1.0
AUDIT_MOST = 10.0


class State(Enum):
    """Where a request is."""

    PUBLISHING = auto()
    QUEUED = auto()
    BOUND = auto()
    HELD = auto()
    ENDED = auto()


_BOUND = State.BOUND
"""Looked up once: a member of an enum costs as much as a call, and it is asked for each token."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The exec that lost the right to speak.

    Attributes:
        attempt: Its attempt.
        exec: Who.
        worker: Where.
        final: It cannot get the right back: it gave it up, or cannot fill a gap.
    """

    attempt: int
    exec: int
    worker: str
    final: bool


class Session:
    """One request.

    Attributes:
        state: Where it is.
        answer: What was delivered of it.
        attempt: The attempt that may be claimed, or is bound.
        exec: The exec that may speak, while BOUND.
        worker: Its worker's id, while BOUND.
        fenced: The exec before, until its successor is bound.
        suspects: Workers that died, or seem to have, while they ran this.
        resumable: Whether another worker can continue after delivered tokens.
        repeatable: Whether another worker can begin anew while nothing was delivered.
        due: When `tick` wants to be called next (monotonic), or None.
    """

    __slots__ = (
        "_accepted", "_audit_gap", "_digest", "_minted", "_outlet", "_published_at",
        "_queue_limit", "_sequence", "_taken", "_wire", "answer", "attempt", "bound_at", "deadline",
        "due", "exec", "fenced", "repeatable", "request", "resumable", "state", "suspects",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        request: wire.Request,
        wire_port: Wire,
        outlet: Outlet,
        *,
        now: float,
        deadline: float | None,
        queue_seconds: float,
    ) -> None:
        self.request = request
        self._wire = wire_port
        self._outlet = outlet
        self.state = State.PUBLISHING
        self.attempt = 0
        self._minted = 0
        self.exec = 0
        self.worker = ""
        self.fenced: Fenced | None = None
        self.suspects: list[str] = []
        self.resumable = self.repeatable = True
        self.deadline = deadline
        self._queue_limit = queue_seconds
        self.answer = (
            Answer([Lane() for _ in range(request.sampling.n)], outlet, self._ask, wire_port.count)
            if request.call is None
            else Items(outlet, self._ask, wire_port.count)
        )
        self._sequence: int | None = None
        self._digest = 0  # The worker's latest that does not speak against the exec.
        self._taken = -1  # The latest attempt whose message a worker has.
        self._accepted = now
        self._published_at = now
        self._audit_gap = AUDIT_FIRST
        self.bound_at: float | None = None
        self.due: float | None = None

    @property
    def fingerprint(self) -> str:
        """Of the model that began the answer, or ""."""
        return self.answer.begun.fingerprint if self.answer.begun is not None else ""

    @property
    def _reached(self) -> str:
        unit = "tokens" if self.request.call is None else "items"
        return f"{self.answer.reached} {unit}"

    # ---- the queue ------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Queue the first attempt."""
        self._publish(now)

    def published(self, attempt: int, outcome: int | MillstreamError | None, now: float) -> None:
        """Take the outcome of a publish: a sequence, a refusal, or None for no answer in time."""
        if self.state is State.ENDED or attempt != self.attempt:
            if isinstance(outcome, int) and attempt != self._taken:
                self._wire.unqueue(self, attempt, outcome)
            return
        if isinstance(outcome, int):
            self._sequence = outcome
            if self.state is State.PUBLISHING:
                self.state = State.QUEUED
                self.due = now + self._audit_gap
            return
        if self.state is not State.PUBLISHING:
            return  # Claimed already: the answer was lost, the message was not.
        limit = PUBLISH_LIMIT if self.attempt == 0 else self._queue_limit
        if isinstance(outcome, RequestTooLarge) and self.attempt:
            self._fail(Unavailable(f"another worker cannot continue the answer: {outcome}"))
        elif isinstance(outcome, Overloaded | RequestTooLarge) or now - self._published_at > limit:
            self._fail(outcome or Unavailable("the queue did not answer", retry_after=1.0))
        elif outcome is None:
            self._wire.publish(self, self._attempt_request())
        else:
            self.due = now + PUBLISH_AGAIN

    def audited(self, attempt: int, present: bool, now: float) -> None:
        """Take the answer of an audit; an attempt that is gone unclaimed is queued anew."""
        if present or self.state is not State.QUEUED or attempt != self.attempt:
            return
        self._wire.count("requeued")
        self._mint(now)

    def _publish(self, now: float) -> None:
        self.state = State.PUBLISHING
        self._sequence = None
        self._published_at = now
        self._audit_gap = AUDIT_FIRST
        self.due = now + PUBLISH_RETRY
        self._wire.publish(self, self._attempt_request())

    def _attempt_request(self) -> wire.Request:
        if self.attempt == 0:
            return self.request
        return self.answer.continuation(
            replace(self.request, attempt=self.attempt, urgency=0, deaths=len(self.suspects))
        )

    def _mint(self, now: float) -> None:
        """Void the current attempt and queue the next."""
        self._minted += 1
        self.attempt = self._minted
        self._publish(now)

    # ---- what execs say -------------------------------------------------------------------------

    def claimed(self, claim: wire.Claim, now: float) -> None:
        """Bind the first exec of the current attempt; every other is told to stop."""
        current = claim.attempt == self.attempt
        if current and self.state is State.BOUND and claim.exec == self.exec:
            self._wire.tell(claim.worker, self._go(now))
        elif current and self.state in (State.PUBLISHING, State.QUEUED):
            if self.fenced is not None:
                self._wire.cancel(self.fenced.worker, self.fenced.exec)
                self.fenced = None
            self._bind(claim.exec, claim.worker, now)
            self._digest = claim.digest
            self._taken = claim.attempt
            self._wire.tell(claim.worker, self._go(now))
        else:
            self._wire.tell(claim.worker, wire.Stop(claim.exec))

    def _bind(self, exec_: int, worker: str, now: float) -> None:
        self.state = State.BOUND
        self.exec = exec_
        self.worker = worker
        self.due = None
        if self.bound_at is None:
            self.bound_at = now
            self._outlet.started(worker)

    def _go(self, now: float) -> wire.Go:
        if self.deadline is None:
            return wire.Go(self.exec, None)
        return wire.Go(self.exec, max(0, int((self.deadline - now) * 1000)))

    def began(self, begun: wire.Begun, now: float) -> None:
        """Keep what a continuation will need."""
        if self._may(begun.exec, begun.attempt):
            self.answer.on_begun(begun, now)
            self._after(now)

    def chunk(self, chunk: wire.Chunk | wire.Parts, now: float) -> bool:
        """Deliver what is new and next of the exec that may speak.

        Returns:
            True in the usual case: it was the next one, and nothing is due.
        """
        if chunk.exec != self.exec or self.state is not _BOUND:
            self._stray(chunk.exec, chunk.attempt)
        elif self.answer.on_chunk(chunk, now):
            return self.due is None and self.state is _BOUND  # Its outlet may have failed it.
        else:
            self._after(now)
        return False

    def token(self, exec_: int, index: int, token: int, message: bytes) -> bool:
        """Deliver a token whose message is ready, where that is all there is to do.

        While BOUND something is due only as long as a gap is open, which the answer looks at.

        Returns:
            Whether it was delivered; if not, it is a chunk like others.
        """
        return (
            exec_ == self.exec
            and self.state is _BOUND
            and self.answer.on_token(index, token, message)
        )

    def done(self, done: wire.Done, now: float) -> None:
        """The exec is through."""
        if self._may(done.exec, done.attempt):
            self.answer.on_done(done, now)
            self._after(now)

    def _may(self, exec_: int, attempt: int) -> bool:
        if exec_ == self.exec and self.state is State.BOUND:
            return True
        self._stray(exec_, attempt)
        return False

    def _after(self, now: float) -> None:
        """The answer moved on: end it if it is complete, else look again while a gap is open."""
        answer = self.answer
        if self.state is not State.BOUND:
            return  # Its outlet failed it meanwhile.
        if answer.complete:
            self._finish(now)
        elif answer.gap_since is None:
            self.due = None
        elif self.due is None:
            self.due = now + RESEND_EVERY

    def _finish(self, now: float) -> None:
        answer, done, begun = self.answer, self.answer.done, self.answer.begun
        assert done is not None
        assert begun is not None
        self._wire.close_exec(self.worker, self.exec)
        self._end()
        self._outlet.finished(
            Summary(
                reasons=done.reasons,
                prompt_tokens=begun.prompt_tokens,
                completion_tokens=done.completion_tokens,
                cached_tokens=begun.cached_tokens,
                queue=(self.bound_at or now) - self._accepted,
                first_token=(answer.first_token or now) - self._accepted,
                total=now - self._accepted,
                attempts=self.attempt + 1,
            )
        )

    def failed(self, failed: wire.Failed) -> None:
        """The exec gave the request up for good."""
        if not self._may(failed.exec, failed.attempt):
            return
        self._wire.close_exec(self.worker, self.exec)
        self._end()
        self._outlet.failed(
            MillstreamError.from_wire(
                failed.kind,
                failed.message,
                failed.field,
                failed.retry_after,
                code=failed.code,
                status=failed.status,
            )
        )

    def released(self, released: wire.Released, now: float) -> None:
        """A draining worker handed the request back."""
        self._wire.close_exec("", released.exec)
        if released.exec == self.exec and self.state is State.BOUND:
            self._wire.count("released")
            self._fence(now, final=True)
        elif self.fenced is not None and self.fenced.exec == released.exec:
            self.fenced = replace(self.fenced, final=True)
            self.unhold(now)

    def _stray(self, exec_: int, attempt: int) -> None:
        """Somebody speaks who may not: cancelled, unless it may get the right to."""
        if self.may_return(exec_):
            return  # Its worker's digest decides whether it gets a reprieve.
        if attempt == self.attempt and self.state in (State.PUBLISHING, State.QUEUED):
            return  # It began before its claim was heard, which it will say again.
        self._wire.count("stray")
        self._wire.cancel("", exec_)

    def took(self, items: int) -> None:
        """The client of a function has taken this many items in all: its window moves on."""
        assert isinstance(self.answer, Items)
        index = self.answer.took(items)
        if index is not None and self.state is State.BOUND:
            self._wire.tell(self.worker, wire.Taken(self.exec, index))

    def _ask(self, choice: int, index: int, begun: bool) -> None:
        self._wire.tell(self.worker, wire.Resend(self.exec, choice, index, begun))

    def listed(self, entry: wire.DigestEntry, digest: int) -> tuple[int, ...]:
        """A digest of the worker lists the bound exec: repair what it sent and we lack.

        Returns:
            The frontier of each choice, which the worker need not keep below.
        """
        self._digest = digest
        self.answer.compare(entry)
        return self.answer.frontiers

    def unlisted(self, first: int, now: float) -> bool:
        """All digests of a round that began with `first` are here: was the exec in none of them?

        Then it is lost, if the round began after its claim. Returns whether it is.
        """
        if self.state is not State.BOUND or self._digest >= first:
            return False
        self.fail_over(now, "unknown", final=True)
        return True

    # ---- failover -------------------------------------------------------------------------------

    def fail_over(self, now: float, cause: str, *, final: bool = False, hold: bool = False) -> None:
        """Fence the bound exec and queue the rest of the answer for another worker.

        Args:
            now: The time.
            cause: Counted.
            final: The exec cannot be reprieved.
            hold: Queue nothing before `unhold`.
        """
        if self.state is not State.BOUND:
            return
        self._wire.count(f"failover_{cause}")
        if final:
            self._wire.cancel(self.worker, self.exec)
        self._fence(now, final=final, hold=hold)

    def _fence(self, now: float, *, final: bool, hold: bool = False) -> None:
        """Take the right to speak away first; then freeze what was delivered and go on from it."""
        self.fenced = Fenced(self.attempt, self.exec, self.worker, final)
        self.exec = 0
        self.worker = ""
        self.answer.freeze()
        self.due = None
        self.state = State.HELD
        if not (self.resumable or (self.repeatable and self.answer.reached == 0)):
            self._fail(
                Unavailable(
                    f"the worker was lost after {self._reached}, and what it ran cannot be "
                    "continued elsewhere",
                    retry_after=1.0,
                )
            )
        elif not hold:
            self._mint(now)

    def unhold(self, now: float) -> None:
        """Queue the next attempt of a held request."""
        if self.state is State.HELD:
            self._mint(now)

    def may_return(self, exec_: int) -> bool:
        """Whether an exec is fenced and may get the right to speak back."""
        fenced = self.fenced
        return fenced is not None and fenced.exec == exec_ and not fenced.final

    def reprieve(self, exec_: int, now: float) -> bool:
        """The fenced exec lives after all: unless its successor was bound, it speaks on.

        Returns:
            Whether it may.
        """
        fenced = self.fenced
        waits = self.state in (State.PUBLISHING, State.QUEUED, State.HELD)
        if fenced is None or not waits or not self.may_return(exec_):
            return False
        if self._sequence is not None:
            self._wire.unqueue(self, self.attempt, self._sequence)
            self._sequence = None
        self._wire.count("reprieve")
        self.attempt = fenced.attempt
        self.fenced = None
        self._bind(exec_, fenced.worker, now)
        return True

    # ---- time and the end -----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.due = None
        if self.state is State.PUBLISHING:
            self.due = now + PUBLISH_RETRY
            self.published(self.attempt, None, now)
        elif self.state is State.QUEUED:
            self._tick_queued(now)
        elif self.state is State.BOUND and self.answer.unfillable(now):
            self.fail_over(now, "gap", final=True)
        elif self.state is State.BOUND and self.answer.gap_since is not None:
            self.answer.repair(now)
            self.due = now + RESEND_EVERY

    def _tick_queued(self, now: float) -> None:
        if now - self._published_at > self._queue_limit:
            self._fail(
                Unavailable(
                    f"no worker took the request within {self._queue_limit:g} s",
                    retry_after=min(self._queue_limit, 5.0),
                )
            )
            return
        if self._sequence is not None:
            self._wire.audit(self, self.attempt, self._sequence)
        self._audit_gap = min(AUDIT_MOST, self._audit_gap * 2)
        self.due = min(now + self._audit_gap, self._published_at + self._queue_limit + 0.001)

    def recheck(self, now: float) -> None:
        """The connection was away: look after a queued attempt soon."""
        if self.state in (State.QUEUED, State.PUBLISHING):
            self._audit_gap = AUDIT_FIRST
            self.due = now

    def stalled(self, seconds: float) -> None:
        """This gateway stood still: what could not have been heard does not count as a gap."""
        if self.answer.gap_since is not None:
            self.answer.gap_since += seconds

    def abandon(self) -> None:
        """The client left: cancel what runs, unqueue what waits."""
        if self.state is not State.ENDED:
            self._retract()
            self._end()

    def fail(self, error: MillstreamError) -> None:
        """End it with an error of the gateway's own."""
        if self.state is not State.ENDED:
            self._fail(error)

    def _fail(self, error: MillstreamError) -> None:
        self._retract()
        self._end()
        self._outlet.failed(error)

    def _retract(self) -> None:
        if self.state is State.BOUND:
            self._wire.cancel(self.worker, self.exec)
        elif self._sequence is not None:
            self._wire.unqueue(self, self.attempt, self._sequence)
        if self.fenced is not None:
            self._wire.cancel(self.fenced.worker, self.fenced.exec)

    def _end(self) -> None:
        self.state = State.ENDED
        self.due = None
        self.answer.over()
