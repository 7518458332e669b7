"""From subjects to sessions: everything a gateway hears, and what its sessions say. Pure.

The router owns the sessions and the fleet, and turns verdicts, digests and reconnects into calls
on sessions. `gateway.link` gives it frames and carries out what it asks of `Io`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gateway.fleet import Fleet, Verdict
from gateway.orders import Orders
from gateway.ports import Io, Outlet
from gateway.session import Session, State
from gateway.sessions import Sessions
from gateway.suspects import Suspects
from gateway.worker import SILENCE_LEAST, Worker
from shared import wire
from shared.errors import MillstreamError, PoisonRequest, Unavailable
from shared.features import ONCE, RESUME, RESUME_STRUCTURED
from shared.ticks import TICK, pause

TICK_MOST = 0.12
"""Seconds between two ticks while nothing is due: a tick wakes the process, which on a quiet
machine costs as much as ten tokens. Most come with the heartbeats of workers, before that."""
ASK_EVERY = 0.1
ORPHAN_LIMIT = 2.0
LATER_MS = 100


class Router:
    """All requests of one gateway.

    Attributes:
        sessions: Open sessions by ULID.
        fleet: The workers.
        events: Counts of what sessions and the router saw, by name.
        on_models: Called when what is served may have changed.
    """

    def __init__(
        self, gateway: str, io: Io, *, queue_seconds: float, refuse_late: bool = True
    ) -> None:
        self.gateway = gateway
        self._open = Sessions(refuse_late=refuse_late)
        self.sessions = self._open.by_id
        self.fleet = Fleet()
        self.events: Counter[str] = Counter()
        self.on_models: Callable[[], None] = lambda: None
        self._io = io
        self._queue_seconds = queue_seconds
        self._orders = Orders(gateway, self.fleet, io.tell)
        self._suspects = Suspects()
        self._orphans: dict[str, float] = {}
        self._asked = -1.0

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any request: no session, no order, no name."""
        return self._open.idle and len(self._orders) == 0

    # ---- sessions -------------------------------------------------------------------------------

    def open(self, request: wire.Request, outlet: Outlet, *, deadline: float | None) -> Session:
        """Accept a request and queue it.

        Raises:
            DuplicateRequest: A request of this tenant and name is running here.
            Overloaded: It would not be done in time.
        """
        self._open.check_name(request.tenant, request.request_id)
        now = self._io.now()
        seconds = self._queue_seconds if deadline is None else deadline - now
        self._open.admission.check(request.model, request.urgency, seconds, now)
        session = Session(
            request, self, outlet, now=now, deadline=deadline, queue_seconds=self._queue_seconds
        )
        self._open.add(session)
        session.open(now)
        self._settle(session)
        return session

    def close(self, session: Session) -> None:
        """The client is served or gone; what still runs for it is cancelled."""
        session.abandon()
        self._settle(session)

    def find(self, tenant: str, request_id: str) -> Session | None:
        """The open session of a client's request name."""
        return self._open.find(tenant, request_id)

    def _settle(self, session: Session) -> None:
        self._open.settle(session, self._io.now())

    # ---- what execs say -------------------------------------------------------------------------

    def on_token(self, request_id: str, data: bytes) -> bool:
        """A frame of `wire.is_token` on a request's reply subject.

        Returns:
            Whether that is all; if not, what it decodes to is for `on_reply`.
        """
        session = self.sessions.get(request_id)
        if session is None:
            return False
        _, exec_, index, token, _ = wire.token_head(data)
        if not session.token(exec_, index, token, data[wire.TOKEN_HEAD :]):
            return False
        if session.state is State.ENDED:  # Its outlet failed it.
            self._settle(session)
        return True

    def on_reply(self, request_id: str, frame: wire.Frame) -> None:
        """A frame on a request's reply subject."""
        session = self.sessions.get(request_id)
        if session is None:
            self._unknown(frame)
            return
        now = self._io.now()
        if type(frame) is wire.Chunk:
            if session.chunk(frame, now):
                return  # The usual case: nothing to settle.
        elif isinstance(frame, wire.Claim):
            self._claim(session, frame, now)
        elif isinstance(frame, wire.Parts) and session.request.call is not None:
            session.chunk(frame, now)
        elif isinstance(frame, wire.Begun):
            session.began(frame, now)
        elif isinstance(frame, wire.Done):
            session.done(frame, now)
        elif isinstance(frame, wire.Failed):
            session.failed(frame)
        elif isinstance(frame, wire.Released):
            session.released(frame, now)
        else:
            self.events["malformed"] += 1
        self._settle(session)

    def _claim(self, session: Session, claim: wire.Claim, now: float) -> None:
        worker = self.fleet.workers.get(claim.worker)
        taken = session.state is State.BOUND or claim.attempt != session.attempt
        if not taken:
            if worker is None or worker.card is None:
                self._ask_who(now)  # Bound to who is not watched, it would never be missed;
                return  # and of who is not known it is not known what must not run twice.
            if worker.lost is not None:
                self._io.tell(claim.worker, wire.Later(claim.exec, LATER_MS))
                return
            if not self._continues(session, claim, worker):
                return
            features = worker.card.features
            session.resumable = RESUME in features and (
                session.request.structured is None or RESUME_STRUCTURED in features
            )
            session.repeatable = ONCE not in features
        session.claimed(claim, now)

    def _continues(self, session: Session, claim: wire.Claim, worker: Worker) -> bool:
        """Whether this worker serves the model that began the answer; if not, it is told so."""
        begun, card = session.fingerprint, worker.card
        if not begun or card is None or card.fingerprint == begun:
            return True
        if self.fleet.serves(begun):
            self._io.tell(claim.worker, wire.Later(claim.exec, LATER_MS))
        else:
            self._io.tell(claim.worker, wire.Stop(claim.exec))
            session.fail(
                Unavailable(
                    f"the answer began on {begun!r}, which no worker serves any more: it cannot "
                    f"be continued after {session.answer.reached} tokens",
                    retry_after=1.0,
                )
            )
        return False

    def _unknown(self, frame: wire.Frame) -> None:
        """Somebody speaks of a request that ended, or never was."""
        if isinstance(frame, wire.Claim):
            self._io.tell(frame.worker, wire.Stop(frame.exec))
        elif isinstance(frame, wire.Done | wire.Failed | wire.Released):
            self.close_exec("", frame.exec)
        elif isinstance(frame, wire.Begun | wire.Chunk | wire.Parts):
            self.cancel("", frame.exec)

    # ---- what workers say -----------------------------------------------------------------------

    def on_worker(self, frame: wire.Frame) -> None:
        """A frame on this gateway's own subject."""
        now = self._io.now()
        if isinstance(frame, wire.Digest):
            self._digest(frame, now)
        elif isinstance(frame, wire.Ended):
            self._orders.ended(frame.exec)
        elif isinstance(frame, wire.ProbeReply):
            self._heard(frame.worker, now)
        elif isinstance(frame, wire.Echo):
            self.fleet.echo(frame.nonce, now)
        else:
            self.events["malformed"] += 1

    def on_heartbeat(self, frame: wire.Heartbeat) -> None:
        """A worker lives."""
        now = self._io.now()
        known = self.fleet.workers.get(frame.worker)
        before = (known.state, known.lost is None) if known else None
        worker = self.fleet.heartbeat(frame, now)
        if worker is None:
            self._ask_who(now)
        elif before != (worker.state, worker.lost is None):
            if worker.lost is None:
                self._returned(worker.id, now)
            self.on_models()

    def _ask_who(self, now: float) -> None:
        if now - self._asked > ASK_EVERY:
            self._asked = now
            self._io.ask_announcements()

    def _heard(self, worker_id: str, now: float) -> None:
        lost = self.fleet.lost(worker_id)
        self.fleet.heard(worker_id, now)
        if lost and not self.fleet.lost(worker_id):
            self._returned(worker_id, now)
            self.on_models()

    def _returned(self, worker_id: str, now: float) -> None:
        """It lives: what it ran is not to blame, and goes on; its digest may reprieve it."""
        for session in self._suspects.returned(worker_id):
            session.unhold(now)
            self._settle(session)

    def on_announce(self, frame: wire.Announce) -> None:
        """A worker says what it serves; a restarted one tells that its former self is dead."""
        now = self._io.now()
        if frame.worker not in self.fleet.workers and frame.state != "gone":
            for former in list(self.fleet.workers.values()):
                silent = former.lost is not None or now - former.seen > SILENCE_LEAST
                if former.name == frame.name and former.id != frame.worker and silent:
                    self._lose(Verdict(former.id, "restarted"), now)
                    self._died(former.id)
                    self.fleet.forget(former.id)
        if frame.state == "gone":
            self._fail_over(frame.worker, "gone", now)
        lost = self.fleet.lost(frame.worker)
        self.fleet.announce(frame, now)
        if lost and not self.fleet.lost(frame.worker):
            self._returned(frame.worker, now)
        self.on_models()

    def on_disconnect(self, name: str, connection: str = "") -> None:
        """The NATS server says that a connection is gone: of one worker, or of several."""
        now = self._io.now()
        verdicts = list(self.fleet.disconnected(name, connection, now))
        for verdict in verdicts:
            self._lose(verdict, now)
        if verdicts:
            self.on_models()

    def _digest(self, digest: wire.Digest, now: float) -> None:
        worker = self.fleet.workers.get(digest.worker)
        lost = self.fleet.lost(digest.worker)
        whole = digest.last and digest.seq == digest.began
        if worker is not None:
            if not worker.told(digest):
                return  # Overtaken: a later one was answered.
            whole = digest.last and worker.whole
            self.fleet.heard(digest.worker, now)
        alive = not self.fleet.lost(digest.worker)
        cancel: list[int] = []
        acked: list[tuple[int, tuple[int, ...]]] = []
        closed: list[int] = []
        for entry in digest.entries:
            session = self._bound(entry, now, alive=alive)
            if session is not None:
                frontiers = session.listed(entry, digest.seq)
                if any(frontiers):  # Of nothing there is nothing to forget.
                    acked.append((entry.exec, frontiers))
            elif entry.ended:
                closed.append(entry.exec)
            elif not self._may_return(entry):
                cancel.append(entry.exec)
        if whole:
            for session in self._open.on(digest.worker).values():
                if session.unlisted(digest.began, now):
                    self._settle(session)
        self._io.tell(
            digest.worker,
            wire.DigestReply(self.gateway, digest.seq, tuple(cancel), tuple(acked), tuple(closed)),
        )
        if lost and alive:
            self._returned(digest.worker, now)
            self.on_models()

    def _bound(self, entry: wire.DigestEntry, now: float, *, alive: bool) -> Session | None:
        """The session that a listed exec may speak for; that of a fenced one may get it back."""
        session = self.sessions.get(entry.request)
        if session is None or session.exec == entry.exec:
            return session
        if not alive or entry.ended:
            return None
        bound = session.reprieve(entry.exec, now)
        self._settle(session)
        return session if bound else None

    def _may_return(self, entry: wire.DigestEntry) -> bool:
        session = self.sessions.get(entry.request)
        return session is not None and session.may_return(entry.exec)

    # ---- verdicts and time ----------------------------------------------------------------------

    def _lose(self, verdict: Verdict, now: float) -> None:
        """Fail the worker's requests over, if another can take them; else wait a while for one."""
        self.events[f"lost_{verdict.cause}"] += 1
        if not self._open.on(verdict.worker):
            return
        if verdict.cause == "restarted" or self.fleet.successor(verdict.worker):
            self._fail_over(verdict.worker, verdict.cause, now)
        else:
            self._orphans.setdefault(verdict.worker, now)

    def _fail_over(self, worker_id: str, cause: str, now: float) -> None:
        self._orphans.pop(worker_id, None)
        for session in self._open.on(worker_id).values():
            hold = cause != "gone" and self._suspects.fell(worker_id, session, now)
            session.fail_over(now, cause, final=cause in ("gone", "restarted"), hold=hold)
            self._settle(session)

    def _died(self, worker_id: str) -> None:
        """A worker is dead for sure."""
        for session in self._suspects.dead(worker_id):
            self.events["poison"] += 1
            session.fail(
                PoisonRequest(
                    f"{len(session.suspects)} workers died on this request: "
                    + ", ".join(session.suspects)
                )
            )
            self._settle(session)

    def tick(self) -> float:
        """Do what is due; returns in how many seconds to call it again."""
        now = self._io.now()
        self._tick(now)
        return self.fleet.plan(now, now + self._pause(now)) - now

    def _pause(self, now: float) -> float:
        """Seconds for which nothing of a request's is due, within bounds."""
        if len(self._orders) or self._orphans:
            return TICK
        dues = [session.due for session in self._open.alert() if session.due is not None]
        return pause(dues, now, TICK_MOST)

    def _tick(self, now: float) -> None:
        for item in self.fleet.check(now):
            if isinstance(item, Verdict):
                self._lose(item, now)
                self.on_models()
            elif isinstance(item, tuple):
                self._io.tell(item[0], wire.Probe(self.gateway, item[1]))
            else:
                self._io.echo(wire.Echo(item))
        if self.fleet.stalled:
            self._catch_up(self.fleet.stalled)
            return
        for worker_id in self._suspects.sure(self.fleet.lost, now):
            self._died(worker_id)
        for worker_id, since in list(self._orphans.items()):
            if not self.fleet.lost(worker_id):
                del self._orphans[worker_id]  # It is back: its digest repairs.
            elif self.fleet.successor(worker_id) or now - since > ORPHAN_LIMIT:
                self._fail_over(worker_id, "orphaned", now)
        for session in self._open.alert():
            if session.due is None or session.due <= now:
                if session.due is not None:
                    session.tick(now)
                self._settle(session)
        self._orders.tick(now)

    def _catch_up(self, seconds: float) -> None:
        """This process stood still: read first what came meanwhile, then look at the clock."""
        self.events["stalled"] += 1
        for session in self._open.alert():
            session.stalled(seconds)
        for worker_id in self._orphans:
            self._orphans[worker_id] += seconds

    def on_connect(self) -> None:
        """NATS is (again) there: verdicts pause, queued attempts are looked after."""
        now = self._io.now()
        self.fleet.connected(now)
        self._io.ask_announcements()
        for session in self._open:
            session.recheck(now)
            self._settle(session)

    # ---- what sessions ask ----------------------------------------------------------------------

    def publish(self, session: Session, request: wire.Request) -> None:
        """Queue an attempt of a session."""

        def done(outcome: int | MillstreamError) -> None:
            session.published(request.attempt, outcome, self._io.now())
            self._settle(session)

        self._io.publish(request, done)

    def unqueue(self, session: Session, attempt: int, sequence: int) -> None:
        """Delete a queued attempt of a session."""
        urgency = session.request.urgency if attempt == 0 else 0
        self._io.unqueue(session.request.id, attempt, urgency, sequence)

    def audit(self, session: Session, attempt: int, sequence: int) -> None:
        """Look for a queued attempt of a session."""
        urgency = session.request.urgency if attempt == 0 else 0

        def done(present: bool) -> None:
            session.audited(attempt, present, self._io.now())
            self._settle(session)

        self._io.audit(session.request.id, attempt, urgency, sequence, done)

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send a control message."""
        self._io.tell(worker, frame)

    def cancel(self, worker: str, exec_: int) -> None:
        """End an exec, whoever runs it, and say so again until it answers."""
        self._orders.cancel(worker, exec_, self._io.now())

    def close_exec(self, worker: str, exec_: int) -> None:
        """The exec's last word has arrived."""
        self._orders.close(worker, exec_)

    def count(self, event: str) -> None:
        """Count an event."""
        self.events[event] += 1
