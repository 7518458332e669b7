"""What this gateway knows of its workers, and when it holds one for dead: pure, time passed in.

A worker is *lost* when its connection is gone (the server says so), when it is silent beyond what
its own history explains and a probe stays unanswered, or when its engine's step counter freezes
with work in flight. A gateway that is itself slow, or was away, passes no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.worker import SILENCE_LEAST, Worker
from shared import wire
from shared.ticks import TICK

PROBE_LIMIT = 0.1
LAG_LIMIT = 0.05
LAG_MEMORY = 0.3
HUNG_REST = 10.0
"""Seconds of nothing in flight after which a hung engine is tried again: without work it makes no
step that would tell that it could."""
GRACE_AFTER_CONNECT = 1.5
FORGET_AFTER = 10.0
_HISTORY = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A worker is lost."""

    worker: str
    cause: str


class Fleet:
    """The workers.

    Attributes:
        workers: By id.
        boots: Worker ids by the upper bits of their execs.
        stalled: Seconds that the latest `check` came too late.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.boots: dict[int, str] = {}
        self.stalled = 0.0
        self._quiet_until = 0.0
        self._planned: float | None = None
        self._nonce = 0
        self._echo_sent = 0.0
        self._echo_heard = 0.0

    # ---- what is heard --------------------------------------------------------------------------

    def announce(self, frame: wire.Announce, now: float) -> Worker | None:
        """Take what a worker says it serves; None for one that is gone."""
        if frame.state == "gone":
            self.forget(frame.worker)
            return None
        worker = self.workers.get(frame.worker)
        if worker is None:
            worker = Worker(
                frame.worker, frame.boot, frame.name, frame.model, frame.state, frame.card,
                frame.reason, seen=now, stepped=now, rotated=now,
            )  # fmt: skip
            self.workers[frame.worker] = worker
            self.boots[frame.boot] = frame.worker
        else:
            self.heard(frame.worker, now)
        worker.model, worker.state = frame.model, frame.state
        worker.card, worker.reason = frame.card, frame.reason
        worker.connection = frame.connection
        return worker

    def heartbeat(self, frame: wire.Heartbeat, now: float) -> Worker | None:
        """Take a heartbeat; None where the worker is not known yet: ask it who it is."""
        worker = self.workers.get(frame.worker)
        if worker is None:
            return None
        paused = now - worker.seen > max(SILENCE_LEAST, 2 * max(worker.longest_gap))
        self.heard(worker.id, now)
        before = worker.beat
        stepped = before is None or frame.steps != before.steps
        if stepped or frame.running == 0 or (before is not None and before.running == 0):
            if before is not None and before.running and stepped and self._attentive(now):
                worker.longest_step[0] = max(worker.longest_step[0], now - worker.stepped)
            worker.stepped = now
        elif paused:
            worker.stepped = now  # All of the process stood still: its engine gets its time anew.
        if frame.running:
            worker.busy = now
        if worker.lost_cause == "hung" and (stepped or now - worker.busy > HUNG_REST):
            worker.lost, worker.lost_cause = None, ""
        worker.beat = frame
        worker.state = frame.state
        return worker

    def heard(self, worker_id: str, now: float) -> None:
        """Anything at all came from a worker: it lives, though its engine may hang."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        if worker.lost is None and self._attentive(now):
            worker.longest_gap[0] = max(worker.longest_gap[0], now - worker.seen)
        if now - worker.rotated > _HISTORY:
            worker.rotated = now
            worker.longest_gap = [0.0, worker.longest_gap[0]]
            worker.longest_step = [0.0, worker.longest_step[0]]
        worker.seen = now
        worker.probed = None
        if worker.lost is not None and worker.lost_cause != "hung":
            worker.lost, worker.lost_cause = None, ""
            worker.stepped = now

    def _attentive(self, now: float) -> bool:
        """Whether a pause was the worker's: not if this gateway was away or stood still itself."""
        return now >= self._quiet_until and self._late(now) < LAG_LIMIT

    def _late(self, now: float) -> float:
        """Seconds by which a check comes later than planned."""
        return now - self._planned if self._planned is not None else 0.0

    def echo(self, nonce: int, now: float) -> None:
        """This gateway's own message came back through the broker."""
        if nonce == self._nonce:
            self._echo_heard = now

    def disconnected(self, name: str, connection: str, now: float) -> Iterator[Verdict]:
        """The server says that a connection is gone; one that was left long ago is no news.

        Args:
            name: The connection's: the id of its only worker.
            connection: As workers announce it, those of one process the same; "" where unknown.
            now: The time.
        """
        for worker in self.workers.values():
            known = worker.connection if connection else ""
            if worker.lost is None and (known == connection if known else worker.id == name):
                worker.lost, worker.lost_cause = now, "disconnect"
                yield Verdict(worker.id, "disconnect")

    def connected(self, now: float) -> None:
        """This gateway was away: no verdicts for a while, and silence counts from now."""
        self._quiet_until = now + GRACE_AFTER_CONNECT
        for worker in self.workers.values():
            worker.seen = worker.stepped = now
            worker.probed = None

    def forget(self, worker_id: str) -> None:
        """It is gone for good."""
        worker = self.workers.pop(worker_id, None)
        if worker is not None:
            self.boots.pop(worker.boot, None)

    # ---- what follows ---------------------------------------------------------------------------

    def check(self, now: float) -> Iterator[Verdict | tuple[str, int] | int]:
        """Pass verdicts; `plan` says when to call it again.

        Yields:
            A `Verdict`; a (worker, nonce) to probe; or a nonce to send to oneself through the
            broker.
        """
        late = self._late(now)
        self.stalled = late if late > LAG_LIMIT else 0.0
        if self.stalled:
            self._quiet_until = max(self._quiet_until, now + LAG_MEMORY)
        if now < self._quiet_until:
            for worker in self.workers.values():
                worker.probed = None
            return
        for worker in list(self.workers.values()):
            if worker.lost is not None:
                if now - max(worker.seen, worker.lost) > FORGET_AFTER:
                    self.forget(worker.id)
                continue
            silent, limit = now - worker.seen, worker.silence_limit()
            if silent > limit - PROBE_LIMIT and worker.probed is None:
                worker.probed = now
                if now - self._echo_sent > PROBE_LIMIT / 2:
                    self._echo_sent = now
                    self._nonce += 1
                    yield self._nonce
                yield worker.id, self._nonce
            elif silent > limit and worker.probed is not None:
                yield from self._judge(worker, worker.probed, now)
            elif self._hung(worker, now):
                worker.lost, worker.lost_cause = now, "hung"
                yield Verdict(worker.id, "hung")

    def plan(self, now: float, at: float) -> float:
        """Fix the time of the next `check`: `at`, or sooner where a verdict may be due.

        A check that comes later than planned tells that this gateway stood still. While a worker
        is asked whether it lives, checks are close: a pause between two of them would go unseen.
        """
        for worker in self.workers.values():
            if worker.lost is None:
                at = min(at, worker.seen + worker.silence_limit() - PROBE_LIMIT)
                if worker.probed is not None:
                    at = now
                if worker.busy_now:
                    at = min(at, worker.stepped + worker.step_limit())
        self._planned = max(now + TICK, at)
        return self._planned

    @staticmethod
    def _hung(worker: Worker, now: float) -> bool:
        return worker.busy_now and now - worker.stepped > worker.step_limit()

    def _judge(self, worker: Worker, probed: float, now: float) -> Iterator[Verdict]:
        """It is silent: is it dead, or is our own link slow?"""
        if now - probed <= PROBE_LIMIT:
            return
        if self._echo_heard >= probed - PROBE_LIMIT / 2:
            worker.lost, worker.lost_cause = now, "silent"
            yield Verdict(worker.id, "silent")
        else:
            worker.probed = None  # Begin again.

    def successor(self, worker_id: str) -> bool:
        """Whether another ready worker serves the model of this one, lost or not."""
        lost = self.workers.get(worker_id)
        return lost is not None and any(
            other.ready and other.id != worker_id and other.model == lost.model
            and _same_model(other.card, lost.card)
            for other in self.workers.values()
        )  # fmt: skip

    def serves(self, fingerprint: str) -> bool:
        """Whether a ready worker serves exactly this model."""
        return any(
            worker.ready and worker.card is not None and worker.card.fingerprint == fingerprint
            for worker in self.workers.values()
        )

    def lost(self, worker_id: str) -> bool:
        """Whether a worker is lost, or not known at all."""
        worker = self.workers.get(worker_id)
        return worker is None or worker.lost is not None

    def models(self) -> dict[str, list[Worker]]:
        """The workers of each served name; of the lost ones those that failed, while remembered."""
        found: dict[str, list[Worker]] = {}
        for worker in self.workers.values():
            if worker.model and (worker.lost is None or worker.state == "failed"):
                found.setdefault(worker.model, []).append(worker)
        return found


def _same_model(one: wire.ModelCard | None, other: wire.ModelCard | None) -> bool:
    return one is None or other is None or one.fingerprint == other.fingerprint
