"""One model on a worker: engine, intake and ledger, and what it says of itself.

A process may run several (`workers.host`): each is a worker of its own to the gateways, over one
connection and one clock.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence

import structlog

from shared import subjects, wire
from shared.bus import Bus
from shared.errors import MillstreamError
from shared.features import ONCE
from shared.streams import StreamConfigError
from shared.telemetry import rare
from shared.ticks import TICK
from workers.acks import ACK
from workers.batching.admission import Admission
from workers.engines.base import Engine, Job, ModelLoadError, Output
from workers.intake import Intake
from workers.ledger import Ledger
from workers.metrics import Snapshot, StepTimes
from workers.pace import Pace
from workers.settings import WorkerSettings
from workers.speaker import COALESCE

log = structlog.get_logger(__name__)

ANNOUNCE_EVERY = 2.0

LoadError = (ModelLoadError, StreamConfigError)


class Runner:
    """A worker of one model.

    Args:
        settings: The process's settings.
        engine: What generates.
        bus: The connection, which others may share.
        model: The name it is served under, or what is known of it before it is loaded.
        died: Called once, if the engine fails as a whole.
        boot: The upper bits of its execs, 32 random ones.
        alone: Whether the process runs no other model: then the worker has the process's name.
        stepped: Called after each step of the engine, its outputs published.

    Attributes:
        name: Outlives a restart.
        worker: The id: the name and a boot number, so that a restarted process is somebody else.
        state: loading, ready, draining, failed, gone.
        ledger: Its execs.
        steps: Step times, for metrics.
        info: What does not change, for metrics; complete once it is loaded.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        engine: Engine,
        bus: Bus,
        *,
        model: str,
        died: Callable[[], None],
        boot: int,
        alone: bool = True,
        stepped: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._bus = bus
        self.say = bus.client.send  # See ports.Io; every token goes through it, so no call more.
        self._model = model
        self._died = died
        self._stepped = stepped
        self._boot = boot
        self.name = settings.name if alone else f"{settings.name}-{_plain(model)}"
        self.worker = f"{self.name}-{self._boot:08x}"
        self.state = "loading"
        self._reason = ""
        self.ledger = Ledger(self.worker, self._boot, self)
        self._intake: Intake | None = None
        self._limit = 0
        self._admission = Admission(1, None)
        self.steps = StepTimes()
        self.info: dict[str, str] = {}
        self._pace = Pace()
        self._beats = 0
        self._beat_due = 0.0
        self._announce_due = 0.0
        self._loop = asyncio.get_running_loop()
        engine.on_room = self.freed
        bus.listen(subjects.control(self.worker), self._on_control)
        bus.listen(subjects.ASK, self._on_ask)
        bus.listen(subjects.GATEWAY_BEATS, self._on_gateway_beat)
        bus.on_connect.append(self._on_connect)
        bus.on_disconnect.append(self.ledger.link_lost)

    @property
    def served(self) -> str:
        """The served name; what was asked for, until the model is loaded."""
        return self._model

    # ---- life -----------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the model, and begin to pull.

        Raises:
            ModelLoadError: It cannot be served.
            StreamConfigError: A stream or consumer exists that is not ours.
        """
        started = time.monotonic()
        try:
            await self._engine.start(self._on_outputs, self._on_engine_died)
            card = self._engine.card
            self._model = card.name
            most = self._settings.max_batch or card.max_batch
            self._admission = Admission(most, self._settings.itl_target)
            self._limit = self._admission.limit
            self.ledger.fingerprint = card.fingerprint
            self.ledger.eager = ONCE not in card.features
            self._intake = Intake(
                self._bus, card.name, self._free, self.ledger.take, self.ledger.events,
                floor=self._settings.batch_floor,
                signature=card.fingerprint if card.signature else "",
                replace=self._settings.replace_signature,
                spare=self._spare,
            )  # fmt: skip
            await self._intake.start()
        except LoadError as error:
            self.state, self._reason = "failed", str(error)
            log.error("worker_failed", model=self._model, reason=str(error))
            self._announce()
            raise
        self.info.update(worker=self.worker, model=card.name, engine=card.engine, dtype=card.dtype)
        self.state = "ready"
        self._announce()
        log.info("ready", model=card.name, worker=self.worker, engine=card.engine,
                 seconds=round(time.monotonic() - started, 2))  # fmt: skip

    def stop_taking(self) -> None:
        """Take nothing new; what runs goes on."""
        self.state = "draining"
        self._announce()
        if self._intake is not None:
            self._intake.stop()
        log.info("draining", model=self._model, running=self.ledger.running,
                 grace=self._settings.drain_grace)  # fmt: skip

    def say_gone(self) -> None:
        """The last word of a worker."""
        self.state = "gone"
        self._announce()

    async def close(self) -> None:
        """Free what the engine took."""
        await self._engine.close()

    def _on_outputs(self, outputs: Sequence[Output]) -> None:
        self.ledger.on_outputs(outputs)
        self._stepped()

    def _on_engine_died(self, error: MillstreamError) -> None:
        log.error("engine_died", model=self._model, error=str(error))
        self._died()

    # ---- time -----------------------------------------------------------------------------------

    def tick(self, now: float, ahead: float) -> float:
        """Do what is due; returns in how many seconds to call it again.

        Args:
            now: Monotonic seconds.
            ahead: A beat that is due within so many seconds goes out now.
        """
        if self._bus.connected:
            every = self._settings.heartbeat_seconds
            if now + min(ahead, every / 2) >= self._beat_due:
                self._beat_due = now + every
                self._beat()
            if now >= self._announce_due:
                self._announce()
        seen = self._engine.observe()
        self._pace.observe(seen.steps, self.ledger.at_work + seen.running, now)
        self.steps.observe(now, seen)
        if self.state == "ready":
            self._admission.observe(now, seen, self.ledger.at_work)
            self._limit = self._admission.limit
        pause = self.ledger.tick()
        if self._intake is not None:
            self._intake.plan()
        if self._admission.learns and seen.running:
            pause = TICK  # Each look at the engine is a step's time.
        return max(0.0, min(pause, self._beat_due - now)) if self._bus.connected else pause

    def snapshot(self) -> Snapshot:
        """For a scrape."""
        return Snapshot(
            self._engine.observe(), self.ledger.at_work, self._limit, self._admission.reason,
            self.ledger.tokens, {**self.ledger.events, **self._bus.client.events}, self.state,
        )  # fmt: skip

    def _beat(self) -> None:
        seen = self._engine.observe()
        self._bus.publish(
            subjects.heartbeat(self.worker),
            wire.encode(
                wire.Heartbeat(
                    self.worker, self._beats, self._model, self.state, seen.steps,
                    self.ledger.at_work, self._limit, seen.waiting, seen.kv_used,
                    self.ledger.tokens,
                )
            ),
        )  # fmt: skip
        self._beats += 1

    def _announce(self) -> None:
        self._announce_due = time.monotonic() + ANNOUNCE_EVERY
        card = self._engine.card if self.state not in ("loading", "failed") else None
        self._bus.publish(
            subjects.announcement(self.worker),
            wire.encode(
                wire.Announce(
                    self.worker, self._boot, self.name, self.state, self._model, card,
                    self._reason, self._bus.connection,
                )
            ),
        )  # fmt: skip

    # ---- what arrives ---------------------------------------------------------------------------

    def _on_connect(self) -> None:
        self.ledger.link_back()
        self._announce_due = self._beat_due = 0.0

    def _on_ask(self, _subject: bytes, _reply: bytes, _headers: bytes, _data: bytes) -> None:
        self._announce_due = 0.0  # At the next tick, once for all that asked.

    def _on_control(self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            frame = wire.decode(data)
        except wire.WireError as error:
            self.ledger.events["malformed"] += 1
            if rare(self.ledger.events["malformed"]):
                log.warning("malformed_frame", error=str(error))
            return
        self.ledger.on_control(frame)

    def _on_gateway_beat(
        self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes
    ) -> None:
        try:
            frame = wire.decode(data)
        except wire.WireError:
            self.ledger.events["malformed"] += 1
            return
        if isinstance(frame, wire.GatewayBeat):
            self.ledger.on_gateway_beat(frame)

    def _free(self) -> int:
        """How many requests could start now: none where the engine or its readers are stuck."""
        return self._room(self._engine.room())

    def _spare(self) -> int:
        """How many more, asked for a while ago, are better taken than given back."""
        return self._room(self._engine.spare())

    def _room(self, room: int | None) -> int:
        if self._pace.stuck or self.ledger.full:
            return 0
        if room is None:
            return self._limit - self.ledger.running
        return room - (self.ledger.running - self.ledger.at_work)  # Less those not yet granted.

    # ---- what the ledger asks (ports.Io) --------------------------------------------------------

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        """Publish on a gateway's own subject."""
        self._bus.publish(subjects.gateway(gateway), wire.encode(frame))

    def ack(self, token: str, how: bytes) -> None:
        """Answer JetStream."""
        self._bus.publish(token, how, lazy=how == ACK)  # Nobody waits for it.

    def submit(self, job: Job) -> None:
        """Give the engine a job."""
        self._engine.submit(job)

    def abort(self, exec_: int) -> None:
        """Take it back."""
        self._engine.abort(exec_)

    def window(self, exec_: int, is_open: bool) -> None:
        """Tell the engine that a function may yield, or must wait."""
        self._engine.window(exec_, is_open)

    def flush_later(self) -> None:
        """Flush coalesced chunks soon."""
        self._loop.call_later(COALESCE, self.ledger.flush)

    def freed(self) -> None:
        """A slot is free: pull."""
        if self._intake is not None:
            self._intake.plan_soon()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


def _plain(model: str) -> str:
    """A model's name as part of a worker's."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", model)[:64]
