"""What this gateway knows of its workers, and when it holds one for dead: pure, time passed in.

A worker is *lost* when its connection is gone (the server says so), when it is silent beyond what
its own history explains and a probe stays unanswered, or when its engine's step counter freezes
with work in flight. A gateway that is itself slow, or was away, passes no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shared import wire

SILENCE_LEAST = 0.3
SILENCE_MOST = 2.0
SILENCE_FACTOR = 4.0
PROBE_LIMIT = 0.1
LAG_LIMIT = 0.05
LAG_MEMORY = 0.3
ECHO_LIMIT = 0.1
HUNG_LEAST = 0.4
HUNG_FACTOR = 4.0
WARM_UP = 10.0
GRACE_AFTER_CONNECT = 1.5
FORGET_AFTER = 10.0
_HISTORY = 30.0


@dataclass(slots=True)
class Worker:
    """One incarnation of a worker process."""

    id: str
    boot: int
    name: str
    model: str
    state: str
    card: wire.ModelCard | None
    reason: str
    since: float
    seen: float
    beat: wire.Heartbeat | None = None
    stepped: float = 0.0
    lost: float | None = None
    lost_cause: str = ""
    longest_gap: list[float] = field(default_factory=lambda: [0.0, 0.0])
    longest_step: list[float] = field(default_factory=lambda: [0.0, 0.0])
    rotated: float = 0.0
    probed: float | None = None
    probe: int = 0

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        return self.state == "ready" and self.lost is None

    def silence_limit(self) -> float:
        """Seconds of silence that its last minute does not explain."""
        usual = SILENCE_FACTOR * max(self.longest_gap)
        return min(SILENCE_MOST, max(SILENCE_LEAST, usual))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A worker is lost; `death` where it counts against the requests it ran."""

    worker: str
    cause: str


class Fleet:
    """The workers.

    Attributes:
        workers: By id.
        boots: Worker ids by the upper bits of their execs.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.boots: dict[int, str] = {}
        self._quiet_until = 0.0
        self._lag_until = 0.0
        self._last_check: float | None = None
        self._echo_nonce = 0
        self._echo_sent: float | None = None
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
                frame.reason, since=now, seen=now, stepped=now, rotated=now,
            )  # fmt: skip
            self.workers[frame.worker] = worker
            self.boots[frame.boot] = frame.worker
        else:
            self._heard(worker, now)
        worker.state, worker.model = frame.state, frame.model
        worker.card, worker.reason = frame.card, frame.reason
        return worker

    def heartbeat(self, frame: wire.Heartbeat, now: float) -> Worker | None:
        """Take a heartbeat; None where the worker is not known yet: ask it who it is."""
        worker = self.workers.get(frame.worker)
        if worker is None:
            return None
        self._heard(worker, now)
        before = worker.beat
        if (
            before is None
            or frame.steps != before.steps
            or frame.running == 0
            or before.running == 0
        ):
            if before is not None and before.running and frame.steps != before.steps:
                worker.longest_step[0] = max(worker.longest_step[0], now - worker.stepped)
            worker.stepped = now
            if worker.lost_cause == "hung":
                worker.lost, worker.lost_cause = None, ""
        worker.beat = frame
        worker.state = frame.state
        return worker

    def probe_reply(self, frame: wire.ProbeReply, now: float) -> None:
        """A probed worker lives."""
        worker = self.workers.get(frame.worker)
        if worker is not None:
            self._heard(worker, now)

    def _heard(self, worker: Worker, now: float) -> None:
        if worker.lost is None:
            worker.longest_gap[0] = max(worker.longest_gap[0], now - worker.seen)
        if now - worker.rotated > _HISTORY:
            worker.rotated = now
            worker.longest_gap = [0.0, worker.longest_gap[0]]
            worker.longest_step = [0.0, worker.longest_step[0]]
        worker.seen = now
        worker.probed = None
        if worker.lost is not None and worker.lost_cause != "hung":
            worker.lost = None
            worker.stepped = now

    def echo(self, nonce: int, now: float) -> None:
        """This gateway's own message came back through the broker."""
        if nonce == self._echo_nonce and self._echo_sent is not None:
            self._echo_heard = now

    def disconnected(self, worker_id: str, now: float) -> Verdict | None:
        """The server says that a worker's connection is gone."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.lost is not None:
            return None
        worker.lost, worker.lost_cause = now, "disconnect"
        return Verdict(worker_id, "disconnect")

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

    def check(self, now: float, period: float) -> Iterator[Verdict | tuple[str, int] | int]:
        """Pass verdicts; called every `period` seconds.

        Yields:
            A `Verdict`; a (worker, nonce) to probe; or a nonce to send to oneself through the
            broker.
        """
        last, self._last_check = self._last_check, now
        if last is None or now - last > period + LAG_LIMIT:
            self._lag_until = now + LAG_MEMORY
            for worker in self.workers.values():
                worker.probed = None
        if now < self._quiet_until or now < self._lag_until:
            return
        for worker in list(self.workers.values()):
            if worker.lost is not None:
                if now - max(worker.seen, worker.lost) > FORGET_AFTER:
                    self.forget(worker.id)
                continue
            silent = now - worker.seen
            if silent > worker.silence_limit():
                if worker.probed is None:
                    worker.probed = now
                    self._echo_nonce += 1
                    worker.probe = self._echo_nonce
                    self._echo_sent = now
                    yield worker.id, worker.probe
                    yield self._echo_nonce
                elif now - worker.probed > PROBE_LIMIT:
                    if self._echo_heard >= worker.probed:
                        worker.lost, worker.lost_cause = now, "silent"
                        yield Verdict(worker.id, "silent")
                    else:
                        worker.probed = None  # Our own link is slow: begin again.
            elif self._hung(worker, now):
                worker.lost, worker.lost_cause = now, "hung"
                yield Verdict(worker.id, "hung")

    def _hung(self, worker: Worker, now: float) -> bool:
        beat = worker.beat
        if beat is None or beat.running == 0 or now - worker.since < WARM_UP:
            return False
        limit = max(HUNG_LEAST, HUNG_FACTOR * max(worker.longest_step))
        return now - worker.stepped > limit

    def successor(self, worker_id: str) -> bool:
        """Whether another ready worker serves the model of this one, lost or not."""
        lost = self.workers.get(worker_id)
        return lost is not None and any(
            other.ready and other.id != worker_id and other.model == lost.model
            and _same_model(other.card, lost.card)
            for other in self.workers.values()
        )  # fmt: skip

    def models(self) -> dict[str, list[Worker]]:
        """The workers of each served name, lost ones left out."""
        found: dict[str, list[Worker]] = {}
        for worker in self.workers.values():
            if worker.lost is None and worker.model:
                found.setdefault(worker.model, []).append(worker)
        return found


def _same_model(one: wire.ModelCard | None, other: wire.ModelCard | None) -> bool:
    return one is None or other is None or one.fingerprint == other.fingerprint
