"""Every exec of a worker, from the claim to the acknowledged end: a pure state machine.

The counterpart of `gateway.session` (see docs/protocol.md). Time and frames come in by method
calls, what follows goes out through `Io`; the simulator runs the very code that serves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Protocol

from shared import wire
from shared.errors import EngineError, InvalidRequest, MillstreamError, Unavailable
from workers.engines.base import Job, Output
from workers.publisher import Publisher

CLAIM_EVERY = 0.05
CLAIM_LIMIT = 2.0
NAK_DELAY = 1.0
DIGEST_EVERY = 0.5
LEASE = 3.0
LINK_LIMIT = 5.0
COALESCE = 0.002


class State(Enum):
    """Where an exec is."""

    CLAIMING = auto()
    RUNNING = auto()
    ENDED = auto()


class Io(Protocol):
    """What the ledger asks of NATS and the engine; nothing here waits."""

    def say(self, gateway: str, request_id: str, frame: bytes) -> None:
        """Publish on a request's reply subject."""

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        """Publish on a gateway's own subject."""

    def ack(self, token: str, how: bytes) -> None:
        """Answer JetStream for a message: +ACK, -NAK, +WPI, +TERM."""

    def submit(self, job: Job) -> None:
        """Give the engine a job."""

    def abort(self, exec_: int) -> None:
        """Take it back."""

    def flush_later(self) -> None:
        """Call `Ledger.flush` after `COALESCE` seconds."""

    def freed(self) -> None:
        """A slot is free."""

    def now(self) -> float:
        """Monotonic seconds."""


class Execution:
    """One attempt at one request on this worker."""

    __slots__ = (
        "attempt",
        "cancelled",
        "claim_due",
        "claimed",
        "deadline",
        "dirty",
        "exec",
        "gateway",
        "prompt_ids",
        "publisher",
        "reasons",
        "request_id",
        "sent_at",
        "state",
        "terminal",
        "token",
        "tokens",
    )  # fmt: skip

    def __init__(
        self, exec_: int, request_id: str, attempt: int, gateway: str, token: str, now: float
    ) -> None:
        self.exec = exec_
        self.request_id = request_id
        self.attempt = attempt
        self.gateway = gateway
        self.token = token
        self.state = State.CLAIMING
        self.claimed = now
        self.claim_due = now + CLAIM_EVERY
        self.deadline: float | None = None
        self.publisher = Publisher(attempt, exec_, ())
        self.reasons: list[str | None] = []
        self.tokens = 0
        self.terminal: bytes | None = None
        self.cancelled = False
        self.sent_at = 0.0
        self.dirty = False


class Peer:
    """What a worker knows of one gateway."""

    __slots__ = ("answered", "digest_due", "execs", "heard")

    def __init__(self, now: float) -> None:
        self.heard = now
        self.answered = now
        self.digest_due = now + DIGEST_EVERY
        self.execs: dict[int, Execution] = {}


class Ledger:
    """The execs of one worker.

    Attributes:
        worker: Its id.
        execs: Every exec not yet forgotten, by number.
        running: Execs that hold a slot.
        events: Counts for metrics, by name.
        tokens: Tokens published since the start.
    """

    def __init__(self, worker: str, boot: int, io: Io, *, fingerprint: str = "") -> None:
        self.worker = worker
        self.fingerprint = fingerprint
        self.execs: dict[int, Execution] = {}
        self.running = 0
        self.events: Counter[str] = Counter()
        self.tokens = 0
        self._io = io
        self._next = boot << 31
        self._digest = 0
        self._claiming: dict[int, Execution] = {}
        self._dirty: list[Execution] = []
        self._flush_planned = False
        self._peers: dict[str, Peer] = {}
        self._link_down: float | None = None

    # ---- taking work ----------------------------------------------------------------------------

    def take(self, gateway: str, request_id: str, attempt: int, token: str, body: bytes) -> None:
        """Claim a pulled attempt, and start it without waiting for the answer."""
        now = self._io.now()
        self._next += 1
        execution = Execution(self._next, request_id, attempt, gateway, token, now)
        self.execs[execution.exec] = execution
        self._claiming[execution.exec] = execution
        self._peer(gateway, now).execs[execution.exec] = execution
        self.running += 1
        self._claim(execution)
        try:
            request = wire.decode(body)
            if not isinstance(request, wire.Request):
                raise wire.WireError("not a request")
        except wire.WireError as error:
            self.events["malformed"] += 1
            self._fail(execution, InvalidRequest(f"the queued request cannot be read: {error}"))
            return
        self._start(execution, request)

    def _start(self, execution: Execution, request: wire.Request) -> None:
        n = request.sampling.n
        delivered = request.delivered or ((),) * n
        if request.fingerprint and request.fingerprint != self.fingerprint:
            self._fail(
                execution,
                Unavailable(
                    f"the answer began on {request.fingerprint!r} and this worker serves "
                    f"{self.fingerprint!r}: it cannot be continued",
                    retry_after=1.0,
                ),
            )
            return
        if len(delivered) != n:
            self._fail(execution, InvalidRequest("a continuation for another number of choices"))
            return
        execution.publisher = Publisher(
            execution.attempt, execution.exec, [len(ids) for ids in delivered]
        )
        execution.reasons = [None] * n
        self._io.submit(
            Job(
                execution.exec, request.prompt, request.messages, request.token_ids,
                request.sampling, delivered if request.delivered else (), request.urgency,
                request.structured, request.adapter,
            )
        )  # fmt: skip

    def _peer(self, gateway: str, now: float) -> Peer:
        peer = self._peers.get(gateway)
        if peer is None:
            peer = self._peers[gateway] = Peer(now)
        if not peer.execs:
            peer.answered = now  # The lease begins with the first exec.
        return peer

    def _claim(self, execution: Execution) -> None:
        claim = wire.Claim(execution.attempt, execution.exec, self.worker, self._digest)
        self._io.say(execution.gateway, execution.request_id, wire.encode(claim))

    def _claim_again(self, execution: Execution, now: float) -> None:
        """No answer yet: say it again for 2 s, then give the message back, or drop an orphan's."""
        if now - execution.claimed < CLAIM_LIMIT:
            execution.claim_due = now + CLAIM_EVERY
            self._io.ack(execution.token, b"+WPI")
            self._claim(execution)
            return
        heard = self._peers[execution.gateway].heard
        if now - heard > LEASE:
            self._io.ack(execution.token, b"+TERM")
            self.events["orphan"] += 1
        else:
            self._io.ack(execution.token, _nak(NAK_DELAY))
            self.events["claim_unanswered"] += 1
        self._drop(execution)

    # ---- what gateways say ----------------------------------------------------------------------

    def on_control(self, frame: wire.Frame) -> None:
        """A frame on this worker's control subject."""
        now = self._io.now()
        if isinstance(frame, wire.DigestReply):
            self._on_digest_reply(frame, now)
            return
        if isinstance(frame, wire.Probe):
            self._io.tell(frame.gateway, wire.ProbeReply(self.worker, frame.nonce))
            return
        if not isinstance(frame, wire.Go | wire.Stop | wire.Later | wire.Cancel | wire.Resend):
            self.events["malformed"] += 1
            return
        execution = self.execs.get(frame.exec)
        if isinstance(frame, wire.Cancel):
            self._cancel(frame.exec, execution)
        elif execution is None:
            return
        elif isinstance(frame, wire.Go):
            self._go(execution, frame)
        elif isinstance(frame, wire.Stop):
            self._io.ack(execution.token, b"+ACK")
            self.events["claim_refused"] += 1
            self._drop(execution)
        elif isinstance(frame, wire.Later):
            self._io.ack(execution.token, _nak(frame.delay_ms / 1000))
            self._drop(execution)
        else:
            self._resend(execution, frame.choice, frame.index)

    def _go(self, execution: Execution, go: wire.Go) -> None:
        self._io.ack(execution.token, b"+ACK")
        self._claiming.pop(execution.exec, None)
        if go.remaining_ms is not None:
            execution.deadline = execution.claimed + go.remaining_ms / 1000
        if execution.state is State.CLAIMING:
            execution.state = State.RUNNING

    def _cancel(self, exec_: int, execution: Execution | None) -> None:
        if execution is not None:
            self.events["cancelled"] += execution.state is not State.ENDED
            if execution.exec in self._claiming:
                self._io.ack(execution.token, b"+ACK")
            gateway = execution.gateway
            self._drop(execution)
            self._io.tell(gateway, wire.Ended(exec_))
            return
        for gateway in self._peers:
            self._io.tell(gateway, wire.Ended(exec_))

    def _resend(self, execution: Execution, choice: int, index: int) -> None:
        self.events["resent"] += 1
        for frame in execution.publisher.resend(choice, index):
            self._io.say(execution.gateway, execution.request_id, frame)
        if execution.terminal is not None:
            self._io.say(execution.gateway, execution.request_id, execution.terminal)

    def _on_digest_reply(self, reply: wire.DigestReply, now: float) -> None:
        peer = self._peers.get(reply.gateway)
        if peer is None:
            return
        peer.answered = peer.heard = now
        for exec_, frontiers in reply.acked:
            execution = self.execs.get(exec_)
            if execution is not None:
                execution.publisher.acknowledge(frontiers)
        for exec_ in reply.cancel:
            execution = self.execs.get(exec_)
            if execution is not None:
                self.events["cancelled"] += 1
                self._drop(execution)
        for exec_ in reply.closed:
            execution = self.execs.get(exec_)
            if execution is not None and execution.state is State.ENDED:
                self._drop(execution)

    def on_gateway_beat(self, beat: wire.GatewayBeat) -> None:
        """A gateway lives, or says good-bye."""
        peer = self._peers.get(beat.gateway)
        if peer is not None and not beat.gone:
            peer.heard = self._io.now()

    # ---- what the engine says -------------------------------------------------------------------

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Publish what a step generated."""
        now = self._io.now()
        execs = self.execs
        for output in outputs:
            execution = execs.get(output.job)
            if execution is None or execution.state is State.ENDED:
                continue
            if output.prompt_ids is not None:
                self._begun(execution, output)
            if output.token_ids:
                self.tokens += len(output.token_ids)
                execution.publisher.add(
                    output.choice, output.token_ids, output.text, output.ends,
                    _plain(output.logprobs),
                )  # fmt: skip
                if now - execution.sent_at >= COALESCE and not execution.dirty:
                    execution.sent_at = now
                    self._send(execution)
                elif not execution.dirty:
                    execution.dirty = True
                    self._dirty.append(execution)
                    if not self._flush_planned:
                        self._flush_planned = True
                        self._io.flush_later()
            if output.error is not None:
                self._fail(execution, output.error)
            elif output.finish is not None:
                self._finish(execution, output)

    def _begun(self, execution: Execution, output: Output) -> None:
        ids = b"".join([token.to_bytes(4, "little") for token in output.prompt_ids or ()])
        begun = wire.Begun(
            execution.attempt, execution.exec, ids, output.cached_tokens, self.fingerprint
        )
        self._io.say(execution.gateway, execution.request_id, wire.encode(begun))

    def _send(self, execution: Execution) -> None:
        execution.dirty = False
        for frame in execution.publisher.flush():
            self._io.say(execution.gateway, execution.request_id, frame)

    def flush(self) -> None:
        """Send what was held back to travel together."""
        self._flush_planned = False
        now = self._io.now()
        dirty, self._dirty = self._dirty, []
        for execution in dirty:
            if execution.dirty and execution.state is not State.ENDED:
                execution.sent_at = now
                self._send(execution)

    def _finish(self, execution: Execution, output: Output) -> None:
        execution.reasons[output.choice] = output.finish
        execution.tokens += output.completion_tokens
        reasons = [reason for reason in execution.reasons if reason is not None]
        if len(reasons) < len(execution.reasons):
            return
        self._send(execution)
        done = wire.Done(
            execution.attempt, execution.exec, execution.publisher.totals, tuple(reasons),
            execution.tokens,
        )  # fmt: skip
        self._end(execution, wire.encode(done))

    def _fail(self, execution: Execution, error: MillstreamError) -> None:
        self._send(execution)
        failed = wire.Failed(
            execution.attempt, execution.exec, error.kind, error.message, error.field,
            error.retry_after,
        )  # fmt: skip
        self._end(execution, wire.encode(failed))

    def _end(self, execution: Execution, terminal: bytes) -> None:
        """Say the last word, free the slot, and keep the record until the gateway has it."""
        execution.state = State.ENDED
        execution.terminal = terminal
        self._io.say(execution.gateway, execution.request_id, terminal)
        self._free()

    def _free(self) -> None:
        self.running -= 1
        self._io.freed()

    def _drop(self, execution: Execution) -> None:
        """Forget an exec; if it still runs, stop it."""
        self.execs.pop(execution.exec, None)
        self._claiming.pop(execution.exec, None)
        self._peers[execution.gateway].execs.pop(execution.exec, None)
        if execution.state is not State.ENDED:
            execution.state = State.ENDED
            self._io.abort(execution.exec)
            self._free()

    # ---- the end of the worker, the engine, the link --------------------------------------------

    def release(self) -> None:
        """Hand back everything that still runs: the drain's grace is over."""
        for execution in list(self.execs.values()):
            if execution.state is State.ENDED:
                continue
            self._io.abort(execution.exec)
            if execution.exec in self._claiming:
                self._io.ack(execution.token, b"-NAK")
                self._drop(execution)
            else:
                self._send(execution)
                released = wire.Released(
                    execution.attempt, execution.exec, execution.publisher.totals
                )
                self._end(execution, wire.encode(released))
                self.events["released"] += 1

    def engine_died(self, error: MillstreamError) -> None:
        """Hand back everything: another worker's engine can continue it."""
        self.events["engine_died"] += 1
        if not isinstance(error, EngineError):
            self.events["engine_died_oddly"] += 1
        self.release()

    def link_lost(self) -> None:
        """NATS is away."""
        self._link_down = self._io.now()

    def link_back(self) -> None:
        """NATS is back: leases begin anew, digests go out at once."""
        self._link_down = None
        now = self._io.now()
        for peer in self._peers.values():
            peer.answered = peer.heard = now
            peer.digest_due = now

    # ---- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due; called every 20 ms or so."""
        now = self._io.now()
        if self._link_down is not None:
            if now - self._link_down > LINK_LIMIT:
                for execution in list(self.execs.values()):
                    self._drop(execution)
            return
        for execution in list(self._claiming.values()):
            if execution.claim_due <= now:
                self._claim_again(execution, now)
        for gateway, peer in list(self._peers.items()):
            self._tick_peer(gateway, peer, now)

    def _tick_peer(self, gateway: str, peer: Peer, now: float) -> None:
        if not peer.execs:
            if now - peer.heard > 60.0:
                del self._peers[gateway]
            return
        if now - peer.answered > LEASE:
            self.events["lease_lapsed"] += 1
            for execution in list(peer.execs.values()):
                if execution.exec not in self._claiming:
                    self._drop(execution)
            peer.answered = now
        elif now >= peer.digest_due:
            peer.digest_due = now + DIGEST_EVERY
            self._send_digest(gateway, peer)

    def _send_digest(self, gateway: str, peer: Peer) -> None:
        self._digest += 1
        entries = tuple(
            wire.DigestEntry(
                execution.request_id, execution.exec, execution.publisher.totals,
                execution.state is State.ENDED, execution.cancelled,
            )
            for execution in peer.execs.values()
        )  # fmt: skip
        self._io.tell(gateway, wire.Digest(self.worker, self._digest, entries))

    @property
    def settled(self) -> bool:
        """Whether every gateway has everything."""
        return not self.execs


def _nak(delay: float) -> bytes:
    return f'-NAK {{"delay": {int(delay * 1e9)}}}'.encode()


def _plain(logprobs: Sequence[wire.TokenLogprobs] | None) -> list[Any] | None:
    if logprobs is None:
        return None
    return [(entry.logprob, entry.top) for entry in logprobs]
