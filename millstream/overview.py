"""What `millstream top` knows of a deployment: frames and stream states in, a picture out. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shared import wire
from shared.subjects import CLASSES

SILENT = 2.0
"""Seconds without a heartbeat after which a worker or gateway counts as lost."""
FORGET = 30.0
RATE_OVER = 5.0
RECENT = 60.0


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker; `state` is lost where it fell silent."""

    worker: str
    model: str
    state: str
    engine: str
    running: int
    limit: int
    waiting: int
    kv_used: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model: its workers that take work, and what waits for it by class."""

    model: str
    workers: int
    running: int
    limit: int
    tokens_per_second: float
    queued: dict[str, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything at one moment.

    Attributes:
        models: By name.
        workers: By id.
        gateways: Ids of those that live.
        failovers: Requests handed from one worker to another, since the stream was made.
        recent_failovers: Of them, in the last minute.
        problems: What could not be seen, and why.
    """

    models: tuple[ModelRow, ...]
    workers: tuple[WorkerRow, ...]
    gateways: tuple[str, ...]
    failovers: int
    recent_failovers: int
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON's types."""
        return asdict(self)


@dataclass(slots=True)
class _Seen:
    beat: wire.Heartbeat
    at: float
    tokens: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=100))

    def rate(self) -> float:
        (then, before), (now, after) = self.tokens[0], self.tokens[-1]
        return (after - before) / (now - then) if now > then else 0.0


class Overview:
    """Gathers what is heard."""

    def __init__(self) -> None:
        self._workers: dict[str, _Seen] = {}
        self._announced: dict[str, wire.Announce] = {}
        self._gateways: dict[str, float] = {}
        self._queued: dict[tuple[str, str], int] = {}
        self._failovers: deque[tuple[float, int]] = deque()
        self.problems: dict[str, str] = {}

    def hear(self, frame: wire.Frame, now: float) -> None:
        """Take a heartbeat, an announcement or a gateway's beat; anything else is ignored."""
        if isinstance(frame, wire.Heartbeat):
            seen = self._workers.get(frame.worker)
            if seen is None:
                seen = self._workers[frame.worker] = _Seen(frame, now)
            seen.beat, seen.at = frame, now
            if not seen.tokens or now - seen.tokens[-1][0] >= RATE_OVER / 100:
                seen.tokens.append((now, frame.tokens))
            while len(seen.tokens) > 2 and now - seen.tokens[1][0] >= RATE_OVER:
                seen.tokens.popleft()
        elif isinstance(frame, wire.Announce):
            if frame.state == "gone":
                self._workers.pop(frame.worker, None)
                self._announced.pop(frame.worker, None)
            else:
                self._announced[frame.worker] = frame
        elif isinstance(frame, wire.GatewayBeat):
            if frame.gone:
                self._gateways.pop(frame.gateway, None)
            else:
                self._gateways[frame.gateway] = now

    def queues(self, subjects: Mapping[str, int]) -> None:
        """Take the messages that wait, by subject."""
        self._queued = {}
        for subject, count in subjects.items():
            _, _, model, urgency = subject.split(".")
            self._queued[_name(model), urgency] = count

    def resumes(self, total: int, now: float) -> None:
        """Take how many continuations were ever queued."""
        if self._failovers and total < self._failovers[-1][1]:
            self._failovers.clear()  # The stream was made anew.
        if not self._failovers or total != self._failovers[-1][1]:
            self._failovers.append((now, total))
        while len(self._failovers) > 1 and now - self._failovers[1][0] > RECENT:
            self._failovers.popleft()

    def picture(self, now: float) -> Picture:
        """How it stands."""
        for worker in [key for key, seen in self._workers.items() if now - seen.at > FORGET]:
            del self._workers[worker]
            self._announced.pop(worker, None)
        for gateway in [key for key, at in self._gateways.items() if now - at > SILENT]:
            del self._gateways[gateway]
        workers = tuple(self._worker(self._workers[key], now) for key in sorted(self._workers))
        names = {row.model for row in workers} | {model for model, _ in self._queued}
        total = self._failovers[-1][1] if self._failovers else 0
        before = self._failovers[0][1] if self._failovers else 0
        return Picture(
            tuple(self._model(name, workers) for name in sorted(names)),
            workers,
            tuple(sorted(self._gateways)),
            total,
            total - before,
            tuple(f"{name}: {why}" for name, why in sorted(self.problems.items())),
        )

    def _worker(self, seen: _Seen, now: float) -> WorkerRow:
        beat = seen.beat
        announced = self._announced.get(beat.worker)
        card = announced.card if announced is not None else None
        lost = now - seen.at > SILENT
        return WorkerRow(
            beat.worker,
            beat.model,
            "lost" if lost else beat.state,
            card.engine if card is not None else "",
            beat.running,
            beat.limit,
            beat.waiting,
            round(beat.kv_used, 4),
            0.0 if lost else round(seen.rate(), 1),
        )

    def _model(self, name: str, workers: tuple[WorkerRow, ...]) -> ModelRow:
        own = [row for row in workers if row.model == name and row.state == "ready"]
        return ModelRow(
            name,
            len(own),
            sum(row.running for row in own),
            sum(row.limit for row in own),
            round(sum(row.tokens_per_second for row in own), 1),
            {urgency: self._queued.get((name, urgency), 0) for urgency in CLASSES},
        )


def _name(token: str) -> str:
    """A model's name from its subject token, as far as the token tells it."""
    head, *rest = token.split("=")
    data = head.encode()
    for part in rest:
        try:
            data += bytes.fromhex(part[:2]) + part[2:].encode()
        except ValueError:  # A shortened name: it ends in a hash.
            return token
    return data.decode(errors="replace")
