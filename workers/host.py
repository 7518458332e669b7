"""One worker process: its connection, its clock, its signals, and the models it serves."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from shared.bus import Bus, BusOptions
from shared.exits import EXIT_ENGINE, EXIT_MODEL, EXIT_OK, EXIT_PORT
from shared.metrics import start_metrics_server
from shared.ready import calm_collector, loop_factory, say_ready
from shared.tasks import cancel
from shared.ticks import TICK, Rest
from workers.engines.base import Engine, ModelLoadError
from workers.engines.loading import Unloadable, load_engines, served_name
from workers.metrics import WorkerMetrics
from workers.rhythm import Rhythm
from workers.runner import LoadError, Runner
from workers.settings import WorkerSettings
from workers.traces import traced

log = structlog.get_logger(__name__)

SETTLE_LIMIT = 2.0
READY_TOUCH = 1.0
ANNOUNCE_FAILURE = 1.0


class Host:
    """Runs the models of one process.

    Args:
        settings: The worker's settings.
        engines: One per model, by the name that is known of it before it is loaded.
    """

    def __init__(self, settings: WorkerSettings, engines: Sequence[tuple[str, Engine]]) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._engine_died = False
        self._ready = False
        self._touch_due = 0.0
        self._loop = asyncio.get_running_loop()
        self._rhythm = Rhythm()
        self._rest = Rest()
        boots = [secrets.randbits(32) for _ in engines]
        name = f"{settings.name}-{boots[0]:08x}"  # The id of a worker that is alone.
        self._bus = Bus(BusOptions(settings.nats, name, settings.nats_connect()))
        self._runners = [
            Runner(
                settings, engine, self._bus, model=model, died=self._on_engine_died, boot=boot,
                alone=len(engines) == 1, stepped=self._on_step,
            )
            for boot, (model, engine) in zip(boots, engines, strict=True)
        ]  # fmt: skip

    async def serve(self) -> int:
        """Load, serve until told to stop, drain; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        try:
            self._measure()  # Who can see it may stop it in order.
        except OSError as error:
            port = self._settings.metrics_port
            log.error("cannot_listen", port=port, reason=str(error))
            return EXIT_PORT
        keeping = self._loop.create_task(self._keep_time())
        keeping.add_done_callback(lambda _: self._stopping.set())  # It ends by an error only.
        try:
            if not await self._until_stopped(self._bus.start()):
                return EXIT_OK
            try:
                if not await self._until_stopped(self._load()):
                    return EXIT_OK
            except LoadError:
                return EXIT_MODEL
            await self._stopping.wait()
            await self._drain()
        finally:
            failed = keeping.done()
            await cancel(keeping)
            for runner in self._runners:
                await runner.close()
            await self._bus.close()
        if failed:
            keeping.result()
        return EXIT_ENGINE if self._engine_died else EXIT_OK

    def _measure(self) -> None:
        """Serve metrics, if that is asked for: before models are loaded, which takes minutes.

        Raises:
            OSError: The port is taken.
        """
        if self._settings.metrics_port is None:
            return
        for runner in self._runners:
            runner.info.update(worker=runner.worker, model=runner.served)  # The rest once loaded.
        own: list[Collector] = [WorkerMetrics(self._runners)]
        if self._settings.app is not None:
            own.append(REGISTRY)  # What its functions and middleware count.
        start_metrics_server(self._settings.metrics_port, *own)

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work` unless told to stop first; whether it was done."""
        task = self._loop.create_task(work)
        stop = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            await cancel(task)
            return False
        task.result()
        return True

    async def _load(self) -> None:
        for runner in self._runners:
            await runner.load()
        self._ready = True
        self._bus.client.flush_now()  # That it is ready goes out before the next pass, of 50 ms.
        calm_collector()
        if self._settings.ready_file is not None:
            names = "\n".join(runner.served for runner in self._runners)
            say_ready(self._settings.ready_file, names)

    async def _keep_time(self) -> None:
        while True:
            now = time.monotonic()
            ahead = self._rhythm.ahead
            pause = min([runner.tick(now, ahead) for runner in self._runners])
            self._rhythm.ticked(now, pause)
            if self._ready and now >= self._touch_due and self._settings.ready_file is not None:
                self._touch_due = now + READY_TOUCH
                if self._bus.connected and not self._stopping.is_set():
                    self._settings.ready_file.touch()  # Health checks look at its age.
            await self._rest.for_(pause)

    def _on_step(self) -> None:
        if self._rhythm.step(time.monotonic()):
            self._rest.end()

    async def _drain(self) -> None:
        """Take nothing new, finish what runs up to the grace, hand the rest back."""
        runners = self._runners
        for runner in runners:
            runner.stop_taking()
        if not self._engine_died:
            await self._wait_for(
                lambda: all(runner.ledger.running == 0 for runner in runners),
                self._settings.drain_grace,
            )
        for runner in runners:
            runner.ledger.release()
        await self._wait_for(lambda: all(runner.ledger.settled for runner in runners), SETTLE_LIMIT)
        for runner in runners:
            runner.say_gone()

    async def _wait_for(self, condition: Callable[[], bool], limit: float) -> None:
        """Wait for a condition that some tick will find; the drain is no hot path."""
        deadline = time.monotonic() + limit
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK)

    def _on_engine_died(self) -> None:
        self._engine_died = True
        self._stopping.set()


async def _serve(settings: WorkerSettings) -> int:
    try:
        engines = [(name, traced(engine, settings.name)) for name, engine in load_engines(settings)]
    except ModelLoadError as error:
        engine = settings.engine if settings.app is None else "app"
        log.error("engine_failed", engine=engine, reason=str(error))
        model = settings.app or served_name(settings)
        silent = settings.model_copy(update={"metrics_port": None})  # There is nothing to measure.
        with suppress(TimeoutError):  # Gateways should hear of it, where NATS is there.
            await asyncio.wait_for(
                Host(silent, [(model, Unloadable(error))]).serve(), ANNOUNCE_FAILURE
            )
        return EXIT_MODEL
    return await Host(settings, engines).serve()


def run(settings: WorkerSettings) -> int:
    """Run a worker until it is told to stop; returns the process's exit code."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings))
