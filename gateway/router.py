"""From subjects to sessions: everything a gateway hears, and what its sessions say. Pure.

The router owns the sessions and the fleet, and turns verdicts, digests and reconnects into calls
on sessions. `gateway.link` gives it frames and carries out what it asks of `Io`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from gateway.fleet import SILENCE_LEAST, Fleet, Verdict
from gateway.session import Outlet, Session, State
from shared import wire
from shared.errors import DuplicateRequest, MillstreamError, PoisonRequest

TICK = 0.02
CANCEL_EVERY = 0.05
ORPHAN_LIMIT = 2.0
POISON_DEATHS = 3
LATER_MS = 100


class Io(Protocol):
    """What the router asks of NATS; nothing here waits."""

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        """Queue an attempt and report its sequence or a refusal; no report without an answer."""

    def unqueue(self, request_id: str, attempt: int, urgency: int, sequence: int) -> None:
        """Delete an attempt from its stream, if the sequence still is that attempt."""

    def audit(
        self,
        request_id: str,
        attempt: int,
        urgency: int,
        sequence: int,
        done: Callable[[bool], None],
    ) -> None:
        """Report whether the attempt is in its stream; no report where there was no answer."""

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send to a worker's control subject."""

    def echo(self, frame: wire.Echo) -> None:
        """Send to this gateway's own subject."""

    def ask_announcements(self) -> None:
        """Ask all workers who they are."""

    def now(self) -> float:
        """Monotonic seconds."""


class Router:
    """All requests of one gateway.

    Attributes:
        sessions: Open sessions by ULID.
        fleet: The workers.
        events: Counts of what sessions and the router saw, by name.
        on_models: Called when what is served may have changed.
    """

    def __init__(self, gateway: str, io: Io, *, queue_seconds: float) -> None:
        self.gateway = gateway
        self.sessions: dict[str, Session] = {}
        self.fleet = Fleet()
        self.events: Counter[str] = Counter()
        self.on_models: Callable[[], None] = lambda: None
        self._io = io
        self._queue_seconds = queue_seconds
        self._names: dict[tuple[str, str], Session] = {}
        self._by_worker: dict[str, dict[str, Session]] = {}
        self._alert: dict[str, Session] = {}
        self._cancels: dict[int, tuple[str, float]] = {}
        self._fallen: dict[str, list[Session]] = {}
        self._orphans: dict[str, float] = {}
        self._asked = -1.0

    # ---- sessions -------------------------------------------------------------------------------

    def open(self, request: wire.Request, outlet: Outlet, *, deadline: float | None) -> Session:
        """Accept a request and queue it.

        Raises:
            DuplicateRequest: A request of this tenant and name is running here.
        """
        name = (request.tenant, request.request_id)
        if name in self._names:
            raise DuplicateRequest(
                f"request_id {request.request_id!r} is running; choose another or cancel it",
                field="request_id",
            )
        now = self._io.now()
        session = Session(
            request, self, outlet, now=now, deadline=deadline, queue_seconds=self._queue_seconds
        )
        self.sessions[request.id] = session
        self._names[name] = session
        session.open(now)
        self._settle(session)
        return session

    def close(self, session: Session) -> None:
        """The client is served or gone; what still runs for it is cancelled."""
        session.abandon()
        self._settle(session)

    def find(self, tenant: str, request_id: str) -> Session | None:
        """The open session of a client's request name."""
        return self._names.get((tenant, request_id))

    def _settle(self, session: Session) -> None:
        """After any call on a session: drop it if it ended, watch it while something is due."""
        key = session.request.id
        if session.state is State.ENDED:
            if self.sessions.pop(key, None) is not None:
                self._names.pop((session.request.tenant, session.request.request_id), None)
                self._alert.pop(key, None)
                self._unbind(session)
        elif session.due is not None:
            self._alert[key] = session
        else:
            self._alert.pop(key, None)

    def _unbind(self, session: Session) -> None:
        self._by_worker.get(session.worker, {}).pop(session.request.id, None)

    # ---- what execs say -------------------------------------------------------------------------

    def on_reply(self, request_id: str, frame: wire.Frame) -> None:
        """A frame on a request's reply subject."""
        session = self.sessions.get(request_id)
        if session is None:
            self._unknown(frame)
            return
        now = self._io.now()
        kind = type(frame)
        if kind is wire.Chunk:
            session.chunk(frame, now)  # type: ignore[arg-type]
            if session.due is None and session.state is State.BOUND:
                return  # The usual case: nothing to settle.
        elif isinstance(frame, wire.Claim):
            self._claim(session, frame, now)
        elif isinstance(frame, wire.Begun):
            session.began(frame)
        elif isinstance(frame, wire.Done):
            session.done(frame, now)
        elif isinstance(frame, wire.Failed):
            session.failed(frame)
        elif isinstance(frame, wire.Released):
            worker = session.worker
            session.released(frame, now)
            self._by_worker.get(worker, {}).pop(request_id, None)
        else:
            self.events["malformed"] += 1
        self._settle(session)

    def _claim(self, session: Session, claim: wire.Claim, now: float) -> None:
        if self._quarantined(session, claim):
            self._io.tell(claim.worker, wire.Later(claim.exec, LATER_MS))
            return
        if session.claimed(claim, now):
            self._by_worker.setdefault(claim.worker, {})[session.request.id] = session

    def _quarantined(self, session: Session, claim: wire.Claim) -> bool:
        """A request with two deaths runs only where no other such suspect runs."""
        if len(session.suspects) < POISON_DEATHS - 1 or session.state is State.BOUND:
            return False
        return any(
            len(other.suspects) >= POISON_DEATHS - 1 and other is not session
            for other in self._by_worker.get(claim.worker, {}).values()
        )

    def _unknown(self, frame: wire.Frame) -> None:
        """Somebody speaks of a request that ended, or never was."""
        if isinstance(frame, wire.Claim):
            self._io.tell(frame.worker, wire.Stop(frame.exec))
        elif isinstance(frame, wire.Begun | wire.Chunk | wire.Done | wire.Failed | wire.Released):
            self.cancel("", frame.exec)

    # ---- what workers say -----------------------------------------------------------------------

    def on_worker(self, frame: wire.Frame) -> None:
        """A frame on this gateway's own subject."""
        now = self._io.now()
        if isinstance(frame, wire.Digest):
            self._digest(frame, now)
        elif isinstance(frame, wire.Ended):
            self._cancels.pop(frame.exec, None)
        elif isinstance(frame, wire.ProbeReply):
            self.fleet.probe_reply(frame, now)
        elif isinstance(frame, wire.Echo):
            self.fleet.echo(frame.nonce, now)
        else:
            self.events["malformed"] += 1

    def on_heartbeat(self, frame: wire.Heartbeat) -> None:
        """A worker lives."""
        now = self._io.now()
        known = self.fleet.workers.get(frame.worker)
        state = (known.state, known.lost is None) if known else None
        worker = self.fleet.heartbeat(frame, now)
        if worker is None:
            if now - self._asked > 0.5:
                self._asked = now
                self._io.ask_announcements()
        elif state != (worker.state, worker.lost is None):
            self._returned(worker.id)
            self.on_models()

    def _returned(self, worker_id: str) -> None:
        """It lives: what it ran is not to blame."""
        for session in self._fallen.pop(worker_id, ()):
            if worker_id in session.suspects:
                session.suspects.remove(worker_id)

    def on_announce(self, frame: wire.Announce) -> None:
        """A worker says what it serves; a restarted one tells that its former self is dead."""
        now = self._io.now()
        if frame.worker not in self.fleet.workers and frame.state != "gone":
            for former in list(self.fleet.workers.values()):
                silent = former.lost is not None or now - former.seen > SILENCE_LEAST
                if former.name == frame.name and former.id != frame.worker and silent:
                    self._lose(Verdict(former.id, "restarted"), now)
                    self.fleet.forget(former.id)
        if frame.state == "gone" and self._by_worker.get(frame.worker):
            self._lose(Verdict(frame.worker, "gone"), now)
        self.fleet.announce(frame, now)
        self.on_models()

    def on_disconnect(self, worker_id: str) -> None:
        """The NATS server says that a connection of this name is gone."""
        now = self._io.now()
        verdict = self.fleet.disconnected(worker_id, now)
        if verdict is not None:
            self._lose(verdict, now)
            self.on_models()

    def _digest(self, digest: wire.Digest, now: float) -> None:
        bound = self._by_worker.get(digest.worker, {})
        listed: set[str] = set()
        cancel: list[int] = []
        acked: list[tuple[int, tuple[int, ...]]] = []
        closed: list[int] = []
        for entry in digest.entries:
            session = self.sessions.get(entry.request)
            if session is not None and not entry.ended and session.reprieve(entry.exec, now):
                bound = self._by_worker.setdefault(digest.worker, {})
                bound[entry.request] = session
                self._settle(session)
            if session is not None and session.exec == entry.exec:
                listed.add(entry.request)
                acked.append((entry.exec, session.listed(entry, now)))
            elif entry.ended:
                closed.append(entry.exec)
            elif session is None or session.fenced is None or session.fenced[1] != entry.exec:
                cancel.append(entry.exec)
        for key, session in list(bound.items()):
            if key not in listed:
                session.unlisted(digest.seq, now)
                if session.worker != digest.worker:
                    bound.pop(key, None)
                self._settle(session)
        self._io.tell(
            digest.worker,
            wire.DigestReply(self.gateway, digest.seq, tuple(cancel), tuple(acked), tuple(closed)),
        )

    # ---- verdicts and time ----------------------------------------------------------------------

    def _lose(self, verdict: Verdict, now: float) -> None:
        """Fail the worker's requests over, if another can take them; else wait a while for one."""
        self.events[f"lost_{verdict.cause}"] += 1
        if not self._by_worker.get(verdict.worker):
            return
        if verdict.cause in ("restarted", "gone") or self.fleet.successor(verdict.worker):
            self._fail_over(verdict.worker, verdict.cause, now)
        else:
            self._orphans[verdict.worker] = now

    def _fail_over(self, worker_id: str, cause: str, now: float) -> None:
        self._orphans.pop(worker_id, None)
        sessions = list(self._by_worker.pop(worker_id, {}).values())
        if cause != "gone":
            self._fallen[worker_id] = sessions
        for session in sessions:
            if cause != "gone":
                session.suspects.append(worker_id)
            if len(session.suspects) >= POISON_DEATHS:
                self.events["poison"] += 1
                session.fail(
                    PoisonRequest(
                        f"{len(session.suspects)} workers died on this request: "
                        + ", ".join(session.suspects)
                    )
                )
            else:
                session.fail_over(now, cause)
            self._settle(session)

    def tick(self) -> None:
        """Do what is due; called every `TICK` seconds."""
        now = self._io.now()
        for worker_id in [key for key in self._fallen if key not in self.fleet.workers]:
            del self._fallen[worker_id]  # It did not return: the deaths stand.
        for item in self.fleet.check(now, TICK):
            if isinstance(item, Verdict):
                self._lose(item, now)
                self.on_models()
            elif isinstance(item, tuple):
                self._io.tell(item[0], wire.Probe(self.gateway, item[1]))
            else:
                self._io.echo(wire.Echo(item))
        for worker_id, since in list(self._orphans.items()):
            known = self.fleet.workers.get(worker_id)
            if known is not None and known.lost is None:
                del self._orphans[worker_id]  # It is back: its digest repairs.
            elif self.fleet.successor(worker_id) or now - since > ORPHAN_LIMIT:
                self._fail_over(worker_id, "orphaned", now)
        for session in list(self._alert.values()):
            if session.due is not None and session.due <= now:
                session.tick(now)
                self._settle(session)
        for exec_, (worker, due) in list(self._cancels.items()):
            if due <= now:
                self._cancel_again(exec_, worker, now)

    def on_connect(self) -> None:
        """NATS is (again) there: verdicts pause, queued attempts are looked after."""
        now = self._io.now()
        self.fleet.connected(now)
        self._io.ask_announcements()
        for session in list(self.sessions.values()):
            session.recheck(now)
            self._settle(session)

    # ---- what sessions ask ----------------------------------------------------------------------

    def publish(self, session: Session, request: wire.Request) -> None:
        """Queue an attempt of a session."""

        def done(outcome: int | MillstreamError) -> None:
            session.published(request.attempt, outcome, self._io.now())
            self._settle(session)

        self._unbind_fenced(session)
        self._io.publish(request, done)

    def _unbind_fenced(self, session: Session) -> None:
        if session.fenced is not None:
            self._by_worker.get(session.fenced[2], {}).pop(session.request.id, None)

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
        now = self._io.now()
        worker = worker or self.fleet.boots.get(exec_ >> 31, "")
        if worker and exec_ not in self._cancels:
            self._cancels[exec_] = (worker, now + CANCEL_EVERY)
            self._io.tell(worker, wire.Cancel(exec_))

    def _cancel_again(self, exec_: int, worker: str, now: float) -> None:
        known = self.fleet.workers.get(worker)
        if known is None or known.lost is not None:
            del self._cancels[exec_]  # Should it return, its digest tells of the exec.
            return
        self._cancels[exec_] = (worker, now + CANCEL_EVERY)
        self._io.tell(worker, wire.Cancel(exec_))

    def count(self, event: str) -> None:
        """Count an event."""
        self.events[event] += 1
