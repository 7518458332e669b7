"""One worker process: engine, intake, ledger and the clock that drives them."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.errors import MillstreamError
from shared.metrics import start_metrics_server
from shared.natsio import rare
from shared.ready import loop_factory, say_ready
from shared.streams import StreamConfigError
from workers.batching.admission import Admission
from workers.engines.base import Engine, Job, ModelLoadError
from workers.engines.loading import load_engine
from workers.intake import Intake
from workers.ledger import Ledger
from workers.metrics import Snapshot, StepTimes, WorkerMetrics
from workers.pace import Pace
from workers.settings import WorkerSettings
from workers.speaker import COALESCE
from workers.traces import traced

log = structlog.get_logger(__name__)

TICK = 0.02
ANNOUNCE_EVERY = 2.0
SETTLE_LIMIT = 2.0

EXIT_OK = 0
EXIT_MODEL = 3
EXIT_ENGINE = 4


class Runner:
    """A worker.

    Args:
        settings: The worker's settings.
        engine: What generates.

    Attributes:
        worker: The id: the name and a boot number, so that a restarted process is somebody else.
    """

    def __init__(self, settings: WorkerSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._boot = secrets.randbits(32)
        self.worker = f"{settings.name}-{self._boot:08x}"
        self._bus = Bus(BusOptions(settings.nats, self.worker, settings.nats_connect()))
        self._state = "loading"
        self._reason = ""
        self._model = settings.served_name or settings.model or settings.engine
        self._ledger = Ledger(self.worker, self._boot, self)
        self._intake: Intake | None = None
        self._limit = 0
        self._admission = Admission(1, None)
        self._steps = StepTimes()
        self._pace = Pace()
        self._beats = 0
        self._beat_due = 0.0
        self._announce_due = 0.0
        self._stopping = asyncio.Event()
        self._engine_died = False
        self._loop = asyncio.get_running_loop()

    # ---- life -----------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Load, serve until told to stop, drain; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._bus.listen(subjects.control(self.worker), self._on_control)
        self._bus.listen(subjects.ASK, self._on_ask)
        self._bus.listen(subjects.GATEWAY_BEATS, self._on_gateway_beat)
        self._bus.on_connect.append(self._on_connect)
        self._bus.on_disconnect.append(self._ledger.link_lost)
        keeping = self._loop.create_task(self._keep_time())
        keeping.add_done_callback(lambda _: self._stopping.set())  # It ends by an error only.
        try:
            if not await self._until_stopped(self._bus.start()):
                return EXIT_OK
            if not await self._until_stopped(self._load()):
                return EXIT_OK if self._state != "failed" else EXIT_MODEL
            await self._stopping.wait()
            await self._drain()
        finally:
            failed = keeping.done()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await self._engine.close()
            await self._bus.close()
        if failed:
            keeping.result()
        return EXIT_ENGINE if self._engine_died else EXIT_OK

    async def _until_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Await `work` unless told to stop first; whether it was done and well."""
        task = self._loop.create_task(work)
        stop = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        result = task.result()
        return result is not False

    async def _load(self) -> bool:
        started = time.monotonic()
        try:
            await self._engine.start(self._ledger.on_outputs, self._on_engine_died)
            card = self._engine.card
            self._model = card.name
            most = self._settings.max_batch or card.max_batch
            self._admission = Admission(most, self._settings.itl_target)
            self._limit = self._admission.limit
            self._ledger.fingerprint = card.fingerprint
            self._ledger.eager = "once" not in card.features
            self._intake = Intake(
                self._bus,
                card.name,
                self._free,
                self._ledger.take,
                floor=self._settings.batch_floor,
            )
            await self._intake.start()
        except (ModelLoadError, StreamConfigError) as error:
            self._state, self._reason = "failed", str(error)
            log.error("worker_failed", model=self._model, reason=str(error))
            self._announce()
            return False
        self._state = "ready"
        self._announce()
        log.info("ready", model=card.name, worker=self.worker, engine=card.engine,
                 seconds=round(time.monotonic() - started, 2))  # fmt: skip
        if self._settings.metrics_port is not None:
            named = {"worker": self.worker, "model": card.name, "engine": card.engine}
            metrics = WorkerMetrics({**named, "dtype": card.dtype}, self._snapshot, self._steps)
            start_metrics_server(self._settings.metrics_port, metrics)
        if self._settings.ready_file is not None:
            say_ready(self._settings.ready_file, card.name)
        return True

    async def _drain(self) -> None:
        """Take nothing new, finish what runs up to the grace, hand the rest back."""
        self._state = "draining"
        self._announce()
        if self._intake is not None:
            self._intake.stop()
        log.info("draining", running=self._ledger.running, grace=self._settings.drain_grace)
        if not self._engine_died:
            await self._wait_for(lambda: self._ledger.running == 0, self._settings.drain_grace)
        self._ledger.release()
        await self._wait_for(lambda: self._ledger.settled, SETTLE_LIMIT)
        self._state = "gone"
        self._announce()

    async def _wait_for(self, condition: Callable[[], bool], limit: float) -> None:
        """Wait for a condition that some tick will find; the drain is no hot path."""
        deadline = time.monotonic() + limit
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK)

    def _on_engine_died(self, error: MillstreamError) -> None:
        log.error("engine_died", error=str(error))
        self._engine_died = True
        self._stopping.set()

    # ---- time -----------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            now = time.monotonic()
            if self._bus.connected:
                if now >= self._beat_due:
                    self._beat_due = now + self._settings.heartbeat_seconds
                    self._beat()
                if now >= self._announce_due:
                    self._announce()
            seen = self._engine.observe()
            self._pace.observe(seen.steps, self._ledger.at_work + seen.running, now)
            self._steps.observe(now, seen)
            if self._state == "ready":
                self._admission.observe(now, seen, self._ledger.at_work)
                self._limit = self._admission.limit
            self._ledger.tick()
            if self._intake is not None:
                self._intake.plan()
            await asyncio.sleep(TICK)

    def _snapshot(self) -> Snapshot:
        """For a scrape."""
        return Snapshot(
            self._engine.observe(), self._ledger.at_work, self._limit, self._admission.reason,
            self._ledger.tokens, self._ledger.events, self._state,
        )  # fmt: skip

    def _beat(self) -> None:
        seen = self._engine.observe()
        self._bus.publish(
            subjects.heartbeat(self.worker),
            wire.encode(
                wire.Heartbeat(
                    self.worker, self._beats, self._model, self._state, seen.steps,
                    self._ledger.at_work, self._limit, seen.waiting, seen.kv_used,
                    self._ledger.tokens,
                )
            ),
        )  # fmt: skip
        self._beats += 1
        if self._settings.ready_file is not None and self._state == "ready":
            self._settings.ready_file.touch()  # Health checks look at its age.

    def _announce(self) -> None:
        self._announce_due = time.monotonic() + ANNOUNCE_EVERY
        card = self._engine.card if self._state not in ("loading", "failed") else None
        self._bus.publish(
            subjects.announcement(self.worker),
            wire.encode(
                wire.Announce(
                    self.worker, self._boot, self._settings.name, self._state, self._model, card,
                    self._reason, self._bus.connection,
                )
            ),
        )  # fmt: skip

    # ---- what arrives ---------------------------------------------------------------------------

    def _on_connect(self) -> None:
        self._ledger.link_back()
        self._announce_due = self._beat_due = 0.0

    def _on_ask(self, _subject: bytes, _reply: bytes, _headers: bytes, _data: bytes) -> None:
        self._announce_due = 0.0  # At the next tick, once for all that asked.

    def _on_control(self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            frame = wire.decode(data)
        except wire.WireError as error:
            self._ledger.events["malformed"] += 1
            if rare(self._ledger.events["malformed"]):
                log.warning("malformed_frame", error=str(error))
            return
        self._ledger.on_control(frame)

    def _on_gateway_beat(
        self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes
    ) -> None:
        try:
            frame = wire.decode(data)
        except wire.WireError:
            self._ledger.events["malformed"] += 1
            return
        if isinstance(frame, wire.GatewayBeat):
            self._ledger.on_gateway_beat(frame)

    def _free(self) -> int:
        """How many requests could start now: none where the engine or its readers are stuck."""
        if self._pace.stuck or self._ledger.full:
            return 0
        return self._limit - self._ledger.running

    # ---- what the ledger asks (ledger.Io) -------------------------------------------------------

    def say(self, gateway: str, request_id: str, frame: bytes) -> None:
        """Publish on a request's reply subject."""
        self._bus.publish(subjects.reply(gateway, request_id), frame)

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        """Publish on a gateway's own subject."""
        self._bus.publish(subjects.gateway(gateway), wire.encode(frame))

    def ack(self, token: str, how: bytes) -> None:
        """Answer JetStream."""
        self._bus.publish(token, how)

    def submit(self, job: Job) -> None:
        """Give the engine a job."""
        self._engine.submit(job)

    def abort(self, exec_: int) -> None:
        """Take it back."""
        self._engine.abort(exec_)

    def flush_later(self) -> None:
        """Flush coalesced chunks soon."""
        self._loop.call_later(COALESCE, self._ledger.flush)

    def freed(self) -> None:
        """A slot is free: pull."""
        if self._intake is not None:
            self._loop.call_soon(self._intake.plan)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


async def _serve(settings: WorkerSettings) -> int:
    try:
        engine = traced(load_engine(settings), settings.name)
    except ModelLoadError as error:
        log.error("engine_failed", engine=settings.engine, reason=str(error))
        return EXIT_MODEL
    return await Runner(settings, engine).serve()


def run(settings: WorkerSettings) -> int:
    """Run a worker until it is told to stop; returns the process's exit code."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings))
