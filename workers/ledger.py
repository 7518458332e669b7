"""Every exec of a worker, from the claim to the acknowledged end: a pure state machine.

The counterpart of `gateway.session` (see docs/protocol.md). Time and frames come in by method
calls, what follows goes out through `Io`; the simulator runs the very code that serves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from shared import wire
from shared.errors import DeadlineExceeded, InvalidRequest, Unavailable
from shared.ticks import TICK, pause
from workers import acks
from workers.digests import SLICE
from workers.engines.base import Job, Output
from workers.execution import Execution, State
from workers.pace import STALL
from workers.parts import PartsPublisher
from workers.peers import Peers, Standing
from workers.ports import Io
from workers.publisher import Publisher
from workers.speaker import Speaker

TICK_MOST = 0.05
"""Seconds between two ticks while nothing is due: each wakes the process."""
CLAIM_EVERY = 0.05
CLAIM_LIMIT = 2.0
NAK_DELAY = 1.0
QUARANTINE = 2
QUARANTINE_DELAY = 0.1
LINK_LIMIT = 5.0
DEADLINE_GRACE = 0.05
RECORD_MOST = 500_000
"""Unacknowledged tokens beyond which nothing is pulled; at twice as many the longest goes back."""

_OF_AN_EXEC = (wire.Go, wire.Stop, wire.Later, wire.Resend)  # Made once, not for every frame.


class Ledger:
    """The execs of one worker.

    Args:
        worker: Its id.
        boot: The upper bits of its execs.
        io: Carries out what it asks.
        slice_: So many execs of a gateway fit into one digest.

    Attributes:
        eager: Whether a job may start before its claim is granted: not if it has effects.
        execs: Every exec not yet forgotten, by number.
        running: Execs that hold a slot.
        events: Counts for metrics, by name.
    """

    def __init__(self, worker: str, boot: int, io: Io, *, slice_: int = SLICE) -> None:
        self.worker = worker
        self.eager = True
        self.execs: dict[int, Execution] = {}
        self.running = 0
        self.events: Counter[str] = Counter()
        self._io = io
        self._speaker = Speaker(io, self._ended)
        self._next = boot << wire.BOOT_SHIFT
        self._digest = 0
        self._claiming: dict[int, Execution] = {}
        self._deadlines: dict[int, Execution] = {}
        self._unclosed: dict[int, Execution] = {}
        self._peers = Peers(slice_)
        self._link_down: float | None = None
        self._ticked: float | None = None

    @property
    def fingerprint(self) -> str:
        """Of the model that is served."""
        return self._speaker.fingerprint

    @fingerprint.setter
    def fingerprint(self, fingerprint: str) -> None:
        self._speaker.fingerprint = fingerprint

    @property
    def tokens(self) -> int:
        """Tokens published since the start."""
        return self._speaker.tokens

    @property
    def kept(self) -> int:
        """Tokens in the records."""
        return self._speaker.kept

    @property
    def full(self) -> bool:
        """Whether the records are so long that nothing more should be taken."""
        return self._speaker.kept > RECORD_MOST

    @property
    def at_work(self) -> int:
        """Jobs that the engine has: a frozen step counter means something only with these."""
        return self.running - sum(e.waiting is not None for e in self._claiming.values())

    @property
    def settled(self) -> bool:
        """Whether every gateway has everything."""
        return not self.execs

    # ---- taking work ----------------------------------------------------------------------------

    def take(
        self,
        gateway: str,
        request_id: str,
        attempt: int,
        token: str,
        body: bytes,
        *,
        fresh: bool = True,
        deaths: int = 0,
    ) -> None:
        """Claim a pulled attempt, and start it without waiting for the answer where it may.

        Args:
            gateway: Whose request it is.
            request_id: Its ULID.
            attempt: Which attempt.
            token: Where JetStream wants its ack.
            body: The encoded request.
            fresh: Whether it was never delivered to anybody before. What was may have killed the
                worker that took it before its claim got out, and must not do so uncounted again.
            deaths: Workers that died, or seem to have, while they ran it.
        """
        now = self._io.now()
        standing = self._peers.standing(gateway, now)
        if standing is not Standing.LIVE:
            self._give_back(token, standing)
            return
        if deaths and self._beside_suspects(deaths):
            self.events["quarantined"] += 1
            self._io.ack(token, acks.nak(QUARANTINE_DELAY))
            return
        self._next += 1
        execution = Execution(self._next, request_id, attempt, gateway, token, now)
        execution.deaths = deaths
        self.execs[execution.exec] = execution
        self._claiming[execution.exec] = execution
        self._peers.begin(execution, now)
        self.running += 1
        self._claim(execution, now)
        try:
            request = wire.decode(body)
            if not isinstance(request, wire.Request):
                raise wire.WireError("not a request")
        except wire.WireError as error:
            self.events["malformed"] += 1
            self._speaker.fail(
                execution, InvalidRequest(f"the queued request cannot be read: {error}")
            )
            return
        known = self._peers.meet(gateway, now).proven
        self._prepare(execution, request, eager=self.eager and known and fresh and attempt == 0)

    def _beside_suspects(self, deaths: int) -> bool:
        """Whether one that may kill its worker would run beside another that may be innocent."""
        return any(
            execution.deaths and max(deaths, execution.deaths) >= QUARANTINE
            for execution in self.execs.values()
            if execution.state is not State.ENDED
        )

    def _give_back(self, token: str, standing: Standing) -> None:
        """A gateway that is silent answers no claim; one that is gone needs no work done."""
        gone = standing is Standing.GONE
        self.events["orphan" if gone else "claim_unanswered"] += 1
        self._io.ack(token, acks.TERM if gone else acks.nak(NAK_DELAY))

    def _prepare(self, execution: Execution, request: wire.Request, *, eager: bool) -> None:
        if request.fingerprint and request.fingerprint != self.fingerprint:
            self._speaker.fail(
                execution,
                Unavailable(
                    f"the answer began on {request.fingerprint!r} and this worker serves "
                    f"{self.fingerprint!r}: it cannot be continued",
                    retry_after=1.0,
                ),
            )
            return
        if request.call is not None:
            execution.publisher = PartsPublisher(
                execution.attempt, execution.exec, request.after_parts, request.untaken
            )
            execution.reasons = [None]
            self._start_or_wait(execution, request, eager=eager)
            return
        n = request.sampling.n
        delivered = request.delivered or ((),) * n
        if len(delivered) != n:
            self._speaker.fail(
                execution, InvalidRequest("a continuation for another number of choices")
            )
            return
        execution.publisher = Publisher(
            execution.attempt,
            execution.exec,
            [len(ids) for ids in delivered],
            ready=request.ready,
        )
        execution.reasons = [None] * n
        self._start_or_wait(execution, request, eager=eager)

    def _start_or_wait(self, execution: Execution, request: wire.Request, *, eager: bool) -> None:
        if eager:
            self._start(execution, request)
        else:
            execution.waiting = request

    def _start(self, execution: Execution, request: wire.Request) -> None:
        self._io.submit(
            Job(
                execution.exec,
                request.prompt,
                request.messages,
                request.token_ids,
                request.sampling,
                request.delivered,
                request.urgency,
                request.structured,
                request.adapter,
                request.traceparent,
                request.call,
                request.request_id,
                request.metadata,
                request.after_items,
                partial(self._remaining, execution),
            )
        )
        self._speaker.restrain(execution)

    def _remaining(self, execution: Execution) -> float | None:
        """Seconds until its deadline, where it has one that is known by now."""
        deadline = execution.deadline
        return None if deadline is None else deadline - DEADLINE_GRACE - self._io.now()

    def _claim(self, execution: Execution, now: float) -> None:
        execution.claims += 1
        execution.claim_sent = now
        execution.claim_due = now + CLAIM_EVERY
        claim = wire.Claim(execution.attempt, execution.exec, self.worker, self._digest)
        self._io.say(execution.subject, wire.encode(claim))

    def _claim_again(self, execution: Execution, now: float) -> None:
        """No answer yet: say it again for 2 s, then give the message back, or drop an orphan's."""
        standing = self._peers.standing(execution.gateway, now)
        if standing is Standing.LIVE and now - execution.claimed < CLAIM_LIMIT:
            self._io.ack(execution.token, acks.WORKING)
            self._claim(execution, now)
        else:
            self._give_back(execution.token, standing)
            self._drop(execution)

    # ---- what gateways say ----------------------------------------------------------------------

    def on_control(self, frame: wire.Frame) -> None:
        """A frame on this worker's control subject."""
        if isinstance(frame, _OF_AN_EXEC):
            execution = self.execs.get(frame.exec)
            if execution is not None:
                self._on_exec(execution, frame)
        elif isinstance(frame, wire.Taken):
            execution = self.execs.get(frame.exec)
            if execution is not None:
                self._speaker.acknowledge(execution, (frame.index,))
        elif isinstance(frame, wire.Cancel):
            self._cancel(frame)
        elif isinstance(frame, wire.Closed):
            self._close(frame.execs)
        elif isinstance(frame, wire.DigestReply):
            self._on_digest_reply(frame)
        elif isinstance(frame, wire.Probe):
            self._io.tell(frame.gateway, wire.ProbeReply(self.worker, frame.nonce))
        else:
            self.events["malformed"] += 1

    def _on_exec(
        self, execution: Execution, frame: wire.Go | wire.Stop | wire.Later | wire.Resend
    ) -> None:
        claiming = execution.exec in self._claiming
        if isinstance(frame, wire.Go):
            self._go(execution, frame)
        elif isinstance(frame, wire.Resend):
            self.events["resent"] += 1
            self._speaker.resend(execution, frame.choice, frame.index, begun=frame.begun)
        elif not claiming:
            self.events["refused_late"] += 1  # An answer to a claim that was granted since.
        elif isinstance(frame, wire.Stop):
            self._io.ack(execution.token, acks.ACK)
            self.events["claim_refused"] += 1
            self._drop(execution)
        else:
            self._io.ack(execution.token, acks.nak(frame.delay_ms / 1000))
            self._drop(execution)

    def _go(self, execution: Execution, go: wire.Go) -> None:
        self._io.ack(execution.token, acks.ACK)
        if self._claiming.pop(execution.exec, None) is None:
            return
        if execution.state is State.CLAIMING:
            execution.state = State.RUNNING
            if go.remaining_ms is not None:
                execution.deadline = execution.claim_sent + go.remaining_ms / 1000 + DEADLINE_GRACE
                self._deadlines[execution.exec] = execution
        if execution.waiting is not None:
            request, execution.waiting = execution.waiting, None
            self._start(execution, request)
        elif execution.claims > 1:
            self._speaker.say_again(
                execution
            )  # What was said before a claim was heard was not heard.

    def _cancel(self, frame: wire.Cancel) -> None:
        execution = self.execs.get(frame.exec)
        if execution is not None:
            self.events["cancelled"] += execution.state is not State.ENDED
            if execution.exec in self._claiming:
                self._io.ack(execution.token, acks.ACK)
            self._drop(execution)
        self._io.tell(frame.gateway, wire.Ended(frame.exec))

    def _close(self, execs: Sequence[int]) -> None:
        for exec_ in execs:
            execution = self.execs.get(exec_)
            if execution is not None and execution.state is State.ENDED:
                self._drop(execution)

    def _on_digest_reply(self, reply: wire.DigestReply) -> None:
        peer = self._peers.get(reply.gateway)
        if peer is None:
            return
        peer.answered = peer.heard = self._io.now()
        for exec_, frontiers in reply.acked:
            execution = self.execs.get(exec_)
            if execution is not None:
                self._speaker.acknowledge(execution, frontiers)
        for exec_ in reply.cancel:
            execution = self.execs.get(exec_)
            if execution is not None and execution.exec not in self._claiming:
                self.events["cancelled"] += 1
                self._drop(execution)
        self._close(reply.closed)

    def on_gateway_beat(self, beat: wire.GatewayBeat) -> None:
        """A gateway lives, or says good-bye."""
        self._peers.heard(beat, self._io.now())

    # ---- what the engine says -------------------------------------------------------------------

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Publish what a step generated."""
        self._speaker.on_outputs(self.execs, outputs)

    def flush(self) -> None:
        """Send what was held back to travel together."""
        self._speaker.flush()

    def _ended(self, execution: Execution) -> None:
        """Its last word is said: free the slot, keep the record until the gateway has it."""
        self._unclosed[execution.exec] = execution
        self._deadlines.pop(execution.exec, None)
        self._free()

    def _free(self) -> None:
        self.running -= 1
        self._io.freed()

    def _drop(self, execution: Execution) -> None:
        """Forget an exec; if it still runs, stop it."""
        self.execs.pop(execution.exec, None)
        self._claiming.pop(execution.exec, None)
        self._deadlines.pop(execution.exec, None)
        self._unclosed.pop(execution.exec, None)
        self._peers.end(execution)
        self._speaker.kept -= execution.publisher.kept
        if execution.state is not State.ENDED:
            execution.state = State.ENDED
            self._io.abort(execution.exec)
            self._free()

    # ---- the end of the worker, the engine, the link --------------------------------------------

    def release(self) -> None:
        """Hand back everything that still runs: the drain's grace is over."""
        for execution in list(self.execs.values()):
            if execution.state is not State.ENDED:
                self._release(execution)

    def _release(self, execution: Execution) -> None:
        """Hand one back. Its claim may have been granted, with the answer still under way."""
        self._io.abort(execution.exec)
        if self._claiming.pop(execution.exec, None) is not None:
            self._io.ack(execution.token, acks.NAK)
        self._speaker.send(execution)
        released = wire.Released(execution.attempt, execution.exec, execution.publisher.totals)
        self._speaker.end(execution, wire.encode(released))
        self.events["released"] += 1

    def link_lost(self) -> None:
        """NATS is away."""
        self._link_down = self._io.now()

    def link_back(self) -> None:
        """NATS is back: leases begin anew, digests go out at once."""
        self._link_down = None
        self._peers.renew(self._io.now())

    # ---- time -----------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due; returns in how many seconds to call it again."""
        now = self._io.now()
        self._tick(now)
        if self._peers.telling:
            return TICK
        dues = [execution.claim_due for execution in self._claiming.values()]
        dues += [execution.terminal_due for execution in self._unclosed.values()]
        dues += [execution.deadline or now for execution in self._deadlines.values()]
        return pause(dues, now, TICK_MOST)

    def _tick(self, now: float) -> None:
        stalled = now - self._ticked if self._ticked is not None else 0.0
        self._ticked = now
        if stalled > STALL:
            self._catch_up(stalled, now)
        for execution in [e for e in self._deadlines.values() if now > (e.deadline or now)]:
            self._io.abort(execution.exec)
            self._speaker.fail(
                execution, DeadlineExceeded("the deadline passed while it was generated")
            )
        if self._link_down is not None:
            if now - self._link_down > LINK_LIMIT:
                self._lapse(list(self.execs.values()))
            return
        for execution in [e for e in self._claiming.values() if e.claim_due <= now]:
            self._claim_again(execution, now)
        for execution in [e for e in self._unclosed.values() if e.terminal_due <= now]:
            self._speaker.repeat(execution, now)
        self._lapse(self._peers.lapsed(now))
        number = self._digest + 1  # One for all: the numbers of a round must have no gap.
        for peer, round_ in self._peers.due(now):
            self._digest = number
            self._io.tell(peer.name, round_.slice(self.worker, number, peer.execs))
        if self.kept > 2 * RECORD_MOST:
            self._shed()

    def _catch_up(self, stalled: float, now: float) -> None:
        self.events["stalled"] += 1
        self._peers.stalled(stalled, now)
        for execution in self._claiming.values():
            execution.claimed += stalled
        if self._link_down is not None:
            self._link_down += stalled

    def _lapse(self, execs: Sequence[Execution]) -> None:
        """Nobody has asked after these for too long."""
        for execution in execs:
            self.events["lease_lapsed"] += 1
            self._drop(execution)

    def _shed(self) -> None:
        """The records outgrow their bound: hand the longest one back."""
        running = [e for e in self.execs.values() if e.state is State.RUNNING]
        if running:
            longest = max(running, key=lambda e: e.publisher.kept)
            self.events["shed"] += 1
            self._release(longest)
