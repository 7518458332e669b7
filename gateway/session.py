"""One request's life at the gateway: a pure state machine (see docs/protocol.md).

Time and messages go in by method calls, what follows goes out through two ports: `Wire` towards
NATS and `Outlet` towards the client. No I/O and no clock of its own, so that the simulator runs
the very code that serves.

    PUBLISHING -> QUEUED -> BOUND -> ENDED
                    ^         |
                    '- fence -'   attempt + 1, with the tokens delivered so far
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Protocol

from shared import wire
from shared.errors import InternalError, MillstreamError, Overloaded, Unavailable

PUBLISH_RETRY = 1.0
PUBLISH_LIMIT = 5.0
RESEND_EVERY = 0.05
GAP_LIMIT = 1.0
AUDIT_FIRST = 1.0
AUDIT_MOST = 10.0
EARLY_MOST = 1024


class State(Enum):
    """Where a request is."""

    PUBLISHING = auto()
    QUEUED = auto()
    BOUND = auto()
    ENDED = auto()


class Wire(Protocol):
    """What a session asks of the NATS side; nothing here waits."""

    def publish(self, session: Session, request: wire.Request) -> None:
        """Queue an attempt; the outcome comes back as `Session.published`."""

    def unqueue(self, session: Session, attempt: int, sequence: int) -> None:
        """Delete a queued attempt from the stream."""

    def audit(self, session: Session, attempt: int, sequence: int) -> None:
        """Look whether an attempt is still queued; the answer comes as `Session.audited`."""

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send a control message."""

    def cancel(self, worker: str, exec_: int) -> None:
        """End an exec: told again until it says that it ended."""

    def count(self, event: str) -> None:
        """Count what an operator wants to see: failover, repair, stray and others."""


class Outlet(Protocol):
    """What a session gives the client; nothing here waits."""

    def started(self, worker: str) -> None:
        """A worker took the request; told once."""

    def delta(
        self, index: int, ids: Sequence[int], text: str, choice: int, attempt: int, logprobs: Any
    ) -> None:
        """The next tokens of one choice."""

    def finished(self, summary: Summary) -> None:
        """The answer is complete; nothing follows."""

    def failed(self, error: MillstreamError) -> None:
        """The request failed for good; nothing follows."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the last message to the client says. Times in seconds since acceptance."""

    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    queue: float
    first_token: float
    total: float
    attempts: int


@dataclass(slots=True)
class Lane:
    """One choice: what was delivered, and what came too early."""

    frontier: int = 0
    delivered: array[int] = field(default_factory=lambda: array("I"))
    early: dict[int, wire.Chunk] = field(default_factory=dict)


class Session:
    """One request.

    Attributes:
        state: Where it is.
        attempt: The attempt that may be claimed, or is bound.
        exec: The exec that may speak, while BOUND.
        worker: Its worker's id.
        due: When `tick` wants to be called next (monotonic), or None.
    """

    __slots__ = (
        "_accepted", "_audit_gap", "_began", "_bound_at", "_claim_digest", "_completion_extra",
        "_done", "_first_token", "_gap_since", "_gap_told", "_lanes", "_minted", "_outlet",
        "_published_at", "_queue_limit", "_sequence", "_started", "_wire", "attempt", "deadline",
        "due", "exec", "fenced", "request", "state", "suspects", "worker",
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
        self.fenced: tuple[int, int, str] | None = None
        self.suspects: list[str] = []
        self.deadline = deadline
        self._queue_limit = queue_seconds
        self._lanes = [Lane() for _ in range(request.sampling.n)]
        self._done: wire.Done | None = None
        self._began: wire.Begun | None = None
        self._sequence: int | None = None
        self._claim_digest = 0
        self._accepted = now
        self._published_at = now
        self._audit_gap = AUDIT_FIRST
        self._bound_at: float | None = None
        self._first_token: float | None = None
        self._gap_since: float | None = None
        self._gap_told = 0.0
        self._started = False
        self.due: float | None = None

    # ---- the queue ------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """Queue the first attempt."""
        self._publish(now)

    def published(self, attempt: int, outcome: int | MillstreamError | None, now: float) -> None:
        """Take the outcome of a publish: a sequence, a refusal, or None for no answer in time."""
        if self.state is State.ENDED or attempt != self.attempt:
            if isinstance(outcome, int):
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
        refused = outcome is not None and not outcome.retryable
        late = now - self._published_at > limit
        if refused or late or isinstance(outcome, Overloaded):
            self._fail(outcome or Unavailable("the queue did not answer", retry_after=1.0))
        elif outcome is None:
            self._wire.publish(self, self._attempt_request())
        else:
            self.due = now + 0.2

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
        began = self._began
        if began is None:
            return replace(self.request, attempt=self.attempt, urgency=0)
        ids = array("I")
        ids.frombytes(began.prompt_ids)
        return replace(
            self.request,
            attempt=self.attempt,
            urgency=0,
            prompt=None,
            messages=None,
            token_ids=tuple(ids),
            delivered=tuple(tuple(lane.delivered) for lane in self._lanes),
            fingerprint=began.fingerprint,
        )

    def _mint(self, now: float) -> None:
        """Void the current attempt and queue the next."""
        self._minted += 1
        self.attempt = self._minted
        self._publish(now)

    # ---- what execs say -------------------------------------------------------------------------

    def claimed(self, claim: wire.Claim, now: float) -> bool:
        """Bind the first exec of the current attempt; every other is told to stop.

        Returns:
            Whether this claim bound the session to a worker it was not bound to.
        """
        if self.state is State.ENDED or claim.attempt != self.attempt:
            self._wire.tell(claim.worker, wire.Stop(claim.exec))
            return False
        if self.state is State.BOUND:
            answer = self._go(now) if claim.exec == self.exec else wire.Stop(claim.exec)
            self._wire.tell(claim.worker, answer)
            return False
        self._bind(claim.exec, claim.worker, now)
        self._claim_digest = claim.digest
        self.fenced = None
        self._wire.tell(claim.worker, self._go(now))
        return True

    def _bind(self, exec_: int, worker: str, now: float) -> None:
        self.state = State.BOUND
        self.exec = exec_
        self.worker = worker
        self.due = None
        if self._bound_at is None:
            self._bound_at = now
        if not self._started:
            self._started = True
            self._outlet.started(worker)

    def _go(self, now: float) -> wire.Go:
        if self.deadline is None:
            return wire.Go(self.exec, None)
        return wire.Go(self.exec, max(0, int((self.deadline - now) * 1000)))

    def began(self, begun: wire.Begun) -> None:
        """Keep what a continuation will need."""
        if begun.exec == self.exec and self._began is None:
            self._began = begun

    def chunk(self, chunk: wire.Chunk, now: float) -> None:
        """Deliver what is new and next, keep what is early, drop what is said already."""
        if chunk.exec != self.exec or self.state is not State.BOUND:
            self._stray(chunk.exec)
            return
        if chunk.choice >= len(self._lanes):
            self._wire.count("malformed")
            return
        lane = self._lanes[chunk.choice]
        if chunk.index == lane.frontier:
            self._deliver(lane, chunk, now)
            if lane.early or self._gap_since is not None:
                self._after_gap(lane, now)
            if self._done is not None:
                self._try_finish(now)
        elif chunk.index < lane.frontier:
            if chunk.index + len(chunk.token_ids) > lane.frontier:
                self.chunk(_tail(chunk, lane.frontier), now)
        else:
            if len(lane.early) < EARLY_MOST:
                lane.early[chunk.index] = chunk
            self._gap(now)

    def _deliver(self, lane: Lane, chunk: wire.Chunk, now: float) -> None:
        lane.frontier += len(chunk.token_ids)
        lane.delivered.extend(chunk.token_ids)
        if self._first_token is None:
            self._first_token = now
        self._outlet.delta(
            chunk.index, chunk.token_ids, chunk.text, chunk.choice, chunk.attempt, chunk.logprobs
        )

    def _after_gap(self, lane: Lane, now: float) -> None:
        """Deliver what waited for this, and see whether anything is missing still."""
        while lane.early:
            first = min(lane.early)
            if first > lane.frontier:
                break
            waiting = lane.early.pop(first)
            if first + len(waiting.token_ids) > lane.frontier:
                self._deliver(lane, _tail(waiting, lane.frontier), now)
        if not any(each.early for each in self._lanes) and self._done is None:
            self._gap_since = None
            self.due = None

    def done(self, done: wire.Done, now: float) -> None:
        """The exec is through; the end waits for the frontier."""
        if done.exec != self.exec or self.state is not State.BOUND:
            self._stray(done.exec)
            return
        if len(done.totals) != len(self._lanes) or len(done.reasons) != len(self._lanes):
            self._wire.count("malformed")
            return
        self._done = done
        self._try_finish(now)

    def _try_finish(self, now: float) -> None:
        done = self._done
        assert done is not None
        if any(lane.frontier < total for lane, total in zip(self._lanes, done.totals, strict=True)):
            self._gap(now)
            return
        self._end()
        began = self._began
        self._outlet.finished(
            Summary(
                reasons=done.reasons,
                prompt_tokens=len(began.prompt_ids) // 4 if began else 0,
                completion_tokens=done.completion_tokens,
                cached_tokens=began.cached_tokens if began else 0,
                queue=(self._bound_at or now) - self._accepted,
                first_token=(self._first_token or now) - self._accepted,
                total=now - self._accepted,
                attempts=self.attempt + 1,
            )
        )

    def failed(self, failed: wire.Failed) -> None:
        """The exec gave the request up for good."""
        if failed.exec != self.exec or self.state is not State.BOUND:
            self._stray(failed.exec)
            return
        self._fail(
            MillstreamError.from_wire(failed.kind, failed.message, failed.field, failed.retry_after)
        )

    def released(self, released: wire.Released, now: float) -> None:
        """A draining worker handed the request back."""
        if released.exec != self.exec or self.state is not State.BOUND:
            return
        self._wire.count("released")
        self._fence(now)

    def _stray(self, exec_: int) -> None:
        """Somebody speaks who may not: the router finds its worker and cancels it."""
        if self.fenced is not None and self.fenced[1] == exec_ and self.state is not State.BOUND:
            return  # Its worker's digest decides whether it gets a reprieve.
        self._wire.count("stray")
        self._wire.cancel("", exec_)

    # ---- repair ---------------------------------------------------------------------------------

    def _gap(self, now: float) -> None:
        """Ask for what is missing: at once, then every 50 ms; unfillable for 1 s is a failover."""
        if self._gap_since is None:
            self._gap_since = now
            self._wire.count("gap")
        elif now - self._gap_told < RESEND_EVERY:
            return
        self._gap_told = now
        for choice, lane in enumerate(self._lanes):
            missing = lane.early or (self._done and lane.frontier < self._done.totals[choice])
            if missing:
                self._wire.tell(self.worker, wire.Resend(self.exec, choice, lane.frontier))
        self.due = now + RESEND_EVERY

    def listed(self, entry: wire.DigestEntry, now: float) -> tuple[int, ...]:
        """The worker's digest lists the bound exec: repair what it sent and we lack.

        Returns:
            The frontier of each choice, which the worker need not keep below.
        """
        frontiers = tuple(lane.frontier for lane in self._lanes)
        short = any(sent > have for sent, have in zip(entry.totals, frontiers, strict=False))
        if short or entry.ended:
            for choice, frontier in enumerate(frontiers):
                self._wire.tell(self.worker, wire.Resend(self.exec, choice, frontier))
            self._wire.count("repair")
        return frontiers

    def unlisted(self, digest_seq: int, now: float) -> None:
        """A digest of the bound worker does not know the exec: lost, if the digest is newer."""
        if self.state is State.BOUND and digest_seq > self._claim_digest:
            self.fail_over(now, "unknown")

    # ---- failover -------------------------------------------------------------------------------

    def fail_over(self, now: float, cause: str) -> None:
        """Fence the bound exec and queue the rest of the answer for another worker."""
        if self.state is not State.BOUND:
            return
        self._wire.count(f"failover_{cause}")
        self._fence(now)

    def _fence(self, now: float) -> None:
        self.fenced = (self.attempt, self.exec, self.worker)
        self.exec = 0
        self.worker = ""
        self._done = None
        self._gap_since = None
        for lane in self._lanes:
            lane.early.clear()
        self._mint(now)

    def reprieve(self, exec_: int, now: float) -> bool:
        """The fenced exec lives after all: unless its successor was bound, it speaks on.

        Returns:
            Whether it may.
        """
        if self.fenced is None or self.fenced[1] != exec_ or self.state is State.BOUND:
            return False
        if self.state is State.ENDED:
            return False
        attempt, _, worker = self.fenced
        if self._sequence is not None:
            self._wire.unqueue(self, self.attempt, self._sequence)
        self._wire.count("reprieve")
        self.attempt = attempt
        self.fenced = None
        self._bind(exec_, worker, now)
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
        elif self.state is State.BOUND and self._gap_since is not None:
            if now - self._gap_since > GAP_LIMIT:
                self.fail_over(now, "gap")
            else:
                self._gap(now)

    def _tick_queued(self, now: float) -> None:
        waited = now - self._published_at
        if waited > self._queue_limit:
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

    def abandon(self) -> None:
        """The client left: cancel what runs, unqueue what waits."""
        if self.state is State.ENDED:
            return
        self._retract()
        self._end()

    def _fail(self, error: MillstreamError) -> None:
        self._retract()
        self._end()
        self._outlet.failed(error)

    def fail(self, error: MillstreamError) -> None:
        """End it with an error of the gateway's own."""
        if self.state is not State.ENDED:
            self._fail(error)

    def _retract(self) -> None:
        if self.state is State.BOUND:
            self._wire.cancel(self.worker, self.exec)
        elif self._sequence is not None:
            self._wire.unqueue(self, self.attempt, self._sequence)

    def _end(self) -> None:
        self.state = State.ENDED
        self.due = None


def _tail(chunk: wire.Chunk, start: int) -> wire.Chunk:
    """The part of a chunk from index `start` on, which lies inside it."""
    skip = start - chunk.index
    if skip == 0:
        return chunk
    ends = chunk.ends
    if ends is None:
        raise InternalError("a chunk of several tokens came without their text ends")
    cut = ends[skip - 1]
    return wire.Chunk(
        chunk.attempt, chunk.exec, start, chunk.token_ids[skip:], chunk.text[cut:],
        tuple(end - cut for end in ends[skip:]), chunk.choice,
        chunk.logprobs[skip:] if chunk.logprobs is not None else None,
    )  # fmt: skip
