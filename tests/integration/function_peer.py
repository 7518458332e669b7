"""A gateway in this process, and workers of functions and of a language model beside it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from gateway.app import App
from gateway.settings import GatewaySettings
from millstream.nats_server import NatsServer
from tests.integration.function_app import app as functions
from tests.integration.grpc_peer import eventually
from tests.integration.http_peer import ROOT, call, listens

APP = "tests.integration.function_app:app"


@contextmanager
def nats_and_functions(directory: Path) -> Iterator[str]:
    """A NATS server, a worker of the functions, and a sim worker."""
    server = NatsServer(directory / "nats")
    server.start()
    workers = []
    try:
        for name, flags in (("app", [APP]), ("sim", ["--engine", "sim", "--served-name", "sim"])):
            command = [sys.executable, "-m", "workers", *flags, "--name", name]
            command += ["--nats", server.url, "--log-level", "warning"]
            workers.append(subprocess.Popen(command, cwd=ROOT))
        yield server.url
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(10)
        server.stop()


@asynccontextmanager
async def gateway(nats_url: str, **settings: Any) -> AsyncIterator[App]:
    """A gateway that serves HTTP and gRPC, once it sees all models."""
    given = {"nats": nats_url, "http_port": 0, "grpc_port": 0, "drain_grace": 5.0, **settings}
    app = App(GatewaySettings(http_host="127.0.0.1", grpc_host="127.0.0.1", **given))
    serving = asyncio.create_task(app.serve())
    wanted = functions.models.keys() | {"sim"}
    try:
        await eventually(lambda: wanted <= _served(app), 30)
        await eventually(lambda: listens(app, http=True), 20)
        yield app
    finally:
        app.stop()
        await serving


def _served(app: App) -> set[str]:
    return {entry.name for entry in app.catalog.entries() if entry.workers}


async def seen(app: App, what: str) -> int:
    """What the worker has seen: items yielded, calls that hold."""
    answer = await call(app, "GET", f"/v1/models/seen/predict?what={what}")
    result: int = answer.json["result"]
    return result
