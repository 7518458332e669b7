"""One gateway process: the gRPC server, the link to NATS, and the order in which they stop."""

from __future__ import annotations

import asyncio
import secrets
import signal

import structlog

from gateway.catalog import Catalog
from gateway.door import Door
from gateway.health import HealthService
from gateway.link import Link
from gateway.reflection import ReflectionService
from gateway.server import GrpcServer, Limits
from gateway.service import InferenceService
from gateway.settings import GatewaySettings
from millstream.v1 import inference_pb2 as pb
from shared.bus import Bus, BusOptions
from shared.ready import loop_factory, say_ready

log = structlog.get_logger(__name__)

SERVICE = "millstream.v1.Inference"
MODEL_PREFIX = "models/"
EXIT_OK = 0
EXIT_PORT = 5


class App:
    """A gateway.

    Args:
        settings: The gateway's settings.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.gateway = f"{settings.name}-{secrets.token_hex(4)}"
        self._bus = Bus(BusOptions(settings.nats, self.gateway, settings.nats_connect()))
        self.link = Link(
            self._bus,
            self.gateway,
            max_queue=settings.max_queue,
            queue_seconds=settings.max_queue_seconds,
        )
        self.catalog = Catalog(self.link.router.fleet)
        self._health = HealthService()
        self._healthy_models: set[str] = set()
        self._draining = False
        reflection = ReflectionService()
        reflection.add_module(pb.DESCRIPTOR)
        self.door = Door(self.gateway, self.link, self.catalog)
        inference = InferenceService(self.door, self.link, self.catalog)
        self.server = GrpcServer(
            [inference, self._health, reflection],
            limits=Limits(
                max_streams=settings.max_streams, max_message_bytes=settings.max_message_bytes
            ),
        )
        self._stopping = asyncio.Event()
        self.link.on_ready = lambda _ready: self._update_health()
        self.link.router.on_models = self._update_health

    async def serve(self) -> int:
        """Serve until told to stop, then drain; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._update_health()
        settings = self._settings
        try:
            port = await self.server.start(settings.grpc_host, settings.grpc_port)
        except OSError as error:
            log.error("cannot_listen", reason=str(error))
            return EXIT_PORT
        log.info("listening", host=settings.grpc_host, port=port, gateway=self.gateway)
        linking = loop.create_task(self.link.serve())
        stop = loop.create_task(self._stopping.wait())
        try:
            if settings.ready_file is not None:
                say_ready(settings.ready_file, f"{settings.grpc_host}:{port}")
            await asyncio.wait((linking, stop), return_when=asyncio.FIRST_COMPLETED)
            if linking.done():
                linking.result()  # It ends by an error only: let that be seen.
            await self._drain()
        finally:
            stop.cancel()
            await self.server.close()
            linking.cancel()
            await asyncio.gather(linking, stop, return_exceptions=True)
            await self.link.close()
        return EXIT_OK

    async def _drain(self) -> None:
        self._draining = True
        self._update_health()
        log.info("draining", open=self.server.calls_open, grace=self._settings.drain_grace)
        await self.server.drain(self._settings.drain_grace)

    def _update_health(self) -> None:
        """What serves: overall and the service while NATS is there, a model while a worker is."""
        up = self.link.ready and not self._draining
        self._health.set("", up)
        self._health.set(SERVICE, up)
        entries = self.catalog.refresh()
        for name in self._healthy_models - entries.keys():
            self._health.remove(MODEL_PREFIX + name)
        for name, entry in entries.items():
            self._health.set(MODEL_PREFIX + name, up and entry.workers > 0)
        self._healthy_models = set(entries)


async def _serve(settings: GatewaySettings) -> int:
    return await App(settings).serve()


def run(settings: GatewaySettings) -> int:
    """Run a gateway until it is told to stop; returns the process's exit code."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings))
