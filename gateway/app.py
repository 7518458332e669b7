"""One gateway process: its servers, the link to NATS, and the order in which they stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.access import Access
from gateway.access.guard import guard
from gateway.access.keys import KeyFileError
from gateway.catalog import Catalog
from gateway.door import Door
from gateway.health import HealthService
from gateway.kserve import inference_pb2 as kserve
from gateway.kserve.service import KServeService
from gateway.link import Link
from gateway.metrics import GatewayMetrics
from gateway.reflection import ReflectionService
from gateway.server import GrpcServer, Limits
from gateway.service import InferenceService
from gateway.settings import GatewaySettings
from gateway.typed.calls import Calls
from gateway.typed.services import TypedServices
from millstream.v1 import inference_pb2 as pb
from shared.bus import Bus, BusOptions
from shared.exits import EXIT_ACCESS, EXIT_OK, EXIT_PORT
from shared.metrics import start_metrics_server
from shared.ready import calm_collector, loop_factory, say_ready
from shared.tasks import cancel
from shared.tls import TlsError
from shared.tracing import configure

if TYPE_CHECKING:
    from gateway.http.server import HttpServer

log = structlog.get_logger(__name__)

SERVICES = ("millstream.v1.Inference", "inference.GRPCInferenceService")
MODEL_PREFIX = "models/"
START_LIMIT = 2.0
"""Seconds that a start waits for NATS and the workers before it listens without them."""
TOLD_TWICE = 0.5
"""Seconds within which a second signal is the first once more."""


class App:
    """A gateway.

    Args:
        settings: The gateway's settings.
        say: Told where it listens, once it is ready; by default the ready file is written.

    Attributes:
        grpc_port: Where gRPC is served, once it is.
        http: What serves HTTP, where it is on.
        calls: Calls functions, for whatever protocol.
        typed: The typed services of functions.
    """

    def __init__(self, settings: GatewaySettings, say: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        if say is None and settings.ready_file is not None:
            say = partial(say_ready, settings.ready_file)
        self._say = say
        self.gateway = f"{settings.name}-{secrets.token_hex(4)}"
        self._bus = Bus(BusOptions(settings.nats, self.gateway, settings.nats_connect()))
        self.link = Link(
            self._bus,
            self.gateway,
            max_queue=settings.max_queue,
            queue_seconds=settings.max_queue_seconds,
            refuse_late=settings.refuse_late,
        )
        self.catalog = Catalog(self.link.router.fleet, count=self.link.router.count)
        self._health = HealthService()
        self._healthy_models: set[str] = set()
        self._forgetting: asyncio.TimerHandle | None = None
        self._draining = False
        reflection = ReflectionService()
        reflection.add_module(pb.DESCRIPTOR)
        reflection.add_module(kserve.DESCRIPTOR)
        self.access = Access(settings.api_keys)
        tracing = configure("gateway", self.gateway)
        self.door = Door(self.gateway, self.link, self.catalog, self.access, tracing)
        self._tensors = KServeService(self.door, self.catalog, self._ready)
        self.server = GrpcServer(
            [self._tensors, self._health, reflection],
            limits=Limits(
                max_streams=settings.max_streams, max_message_bytes=settings.max_message_bytes
            ),
            ssl=settings.tls(),
        )
        guard(self.server, self.access)
        self.calls = Calls(self.door, self.catalog)
        self.typed = TypedServices(self.calls, self.server, reflection, self._health)
        self.server.add(
            InferenceService(self.door, self.link, self.catalog, self.calls, self.typed.service_of)
        )
        self.http: HttpServer | None = None
        self.grpc_port = 0
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._stop_told = 0.0
        self._linked = asyncio.Event()
        self.link.on_ready = self._on_ready
        self.link.router.on_models = self._update_health

    async def serve(self) -> int:
        """Serve until told to stop, then drain; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._update_health()
        linking = loop.create_task(self.link.serve())
        linking.add_done_callback(lambda _: self._linked.set())
        stop = loop.create_task(self._stopping.wait())
        try:
            with suppress(TimeoutError):  # Who calls at once should find what is served.
                await asyncio.wait_for(self._linked.wait(), START_LIMIT)
            try:
                addresses = await self._listen()
            except OSError as error:
                log.error("cannot_listen", reason=str(error))
                return EXIT_PORT
            calm_collector()
            if self._say is not None:
                self._say("\n".join(addresses))
            await asyncio.wait((linking, stop), return_when=asyncio.FIRST_COMPLETED)
            if linking.done():
                linking.result()  # It ends by an error only: let that be seen.
            await self._leave()
            await self._drain()
        finally:
            await self._close_servers()
            await cancel(linking, stop)
            await self.link.close()
        return EXIT_OK

    def stop(self) -> None:
        """Make `serve` drain and return; again, and it does not wait before it drains.

        One of several processes is told twice at once, by Ctrl-C and by the one that started it.
        """
        now = time.monotonic()
        if not self._stopping.is_set():
            self._stop_told = now
        elif now - self._stop_told > TOLD_TWICE:
            self._hurrying.set()
        self._stopping.set()

    def _on_ready(self, ready: bool) -> None:
        if ready:
            self._linked.set()
        self._update_health()

    async def _listen(self) -> list[str]:
        """Start the servers; returns where they listen, gRPC first."""
        settings = self._settings
        self.grpc_port = await self.server.start(
            settings.grpc_host, settings.grpc_port, reuse_port=settings.processes > 1
        )
        addresses = [f"{settings.grpc_host}:{self.grpc_port}"]
        if settings.http_port is not None:
            # Where it is off, nothing of FastAPI is imported.
            from gateway.http.front import Front
            from gateway.http.server import HttpServer

            front = Front(
                self.door, self.link, self.catalog, ping_seconds=settings.http_ping_seconds
            )
            self.http = HttpServer(front, settings)
            http_port = await self.http.start(settings.http_host, settings.http_port)
            addresses.append(f"{settings.http_host}:{http_port}")
        if settings.metrics_port is not None:
            metrics = GatewayMetrics(
                self.link.router, self.server.counters, self.door.answers, self._ready
            )
            try:
                start_metrics_server(settings.metrics_port, metrics)
            except OSError as error:
                where = f"0.0.0.0:{settings.metrics_port}, for metrics"
                raise OSError(error.errno, f"cannot listen at {where}: {error.strerror}") from error
        guards = {"api_keys": settings.api_keys, "tls": settings.tls_cert}
        told = {name: "off" if file is None else "on" for name, file in guards.items()}
        log.info("listening", addresses=addresses, gateway=self.gateway, **told)
        return addresses

    async def _leave(self) -> None:
        """Say that it is not ready; serve on for as long as balancers may need to notice."""
        self._draining = True
        self._update_health()
        if self.http is not None:
            self.http.leave()
        delay = self._settings.drain_delay
        if delay:
            log.info("leaving", delay=delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurrying.wait(), delay)

    async def _drain(self) -> None:
        grace = self._settings.drain_grace
        streams = self.http.open if self.http is not None else 0
        log.info("draining", open=self.server.calls_open + streams, grace=grace)
        self._tensors.drain()
        drains = [self.server.drain(grace)]
        if self.http is not None:
            drains.append(self.http.drain(grace))
        await asyncio.gather(*drains)

    async def _close_servers(self) -> None:
        closes = [self.server.close()]
        if self.http is not None:
            closes.append(self.http.close())
        await asyncio.gather(*closes)

    def _ready(self) -> bool:
        return self.link.ready and not self._draining

    def _update_health(self) -> None:
        """What serves: overall and the services while NATS is there, a model while a worker is."""
        up = self._ready()
        for name in ("", *SERVICES):
            self._health.set(name, up)
        found = self.catalog.refresh()
        entries = dict(self.catalog.defaults()) | found
        for name in self._healthy_models - entries.keys():
            self._health.remove(MODEL_PREFIX + name)
        for name, entry in entries.items():
            self._health.set(MODEL_PREFIX + name, up and entry.workers > 0)
        self._healthy_models = set(entries)
        self.typed.update(self.catalog, up)
        self._forget_later()

    def _forget_later(self) -> None:
        """Look again when a model that nobody serves any more is to be forgotten."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        left = self.catalog.forgets_in
        if left is not None:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(left + 0.01, self._update_health)


async def _serve(settings: GatewaySettings, say: Callable[[str], None] | None) -> int:
    try:
        gateway = App(settings, say)
    except (KeyFileError, TlsError) as error:
        log.error("cannot_start", reason=str(error))
        return EXIT_ACCESS
    return await gateway.serve()


def run(settings: GatewaySettings, say: Callable[[str], None] | None = None) -> int:
    """Run a gateway until it is told to stop; returns the process's exit code.

    Args:
        settings: Its settings.
        say: See `App`.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, say))
