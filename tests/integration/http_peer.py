"""A gateway with HTTP in this process, workers beside it, an HTTP client that hides nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from gateway.app import App
from gateway.settings import GatewaySettings
from millstream.nats_server import NatsServer
from tests.integration.grpc_peer import eventually

ROOT = Path(__file__).parents[2]
FEW = 50
"""Turns of the loop, of which a timer of 50 ms takes hundreds."""


@dataclass(frozen=True)
class Beside:
    """What runs beside a gateway: the flags of each worker, and the models that they serve."""

    workers: dict[str, list[str]]
    models: Set[str]


SIMS = Beside(
    {
        name: ["--engine", "sim", "--served-name", name, "--engine-arg", f"step_ms={step_ms}"]
        for name, step_ms in (("sim", 2), ("fast", 0))
    },
    {"sim", "fast"},
)


def nats_and_workers(directory: Path) -> AbstractContextManager[str]:
    """A NATS server, and sim workers `sim` (2 ms a token) and `fast` (free-running)."""
    return nats_and(SIMS, directory)


@contextmanager
def nats_and(beside: Beside, directory: Path) -> Iterator[str]:
    """A NATS server and workers; yields its URL."""
    server = NatsServer(directory / "nats")
    server.start()
    workers = []
    try:
        for name, flags in beside.workers.items():
            command = [sys.executable, "-m", "workers", *flags, "--name", name]
            command += ["--nats", server.url, "--log-level", "warning"]
            workers.append(subprocess.Popen(command, cwd=ROOT))
        yield server.url
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)
        server.stop()


@asynccontextmanager
async def gateway(nats_url: str, beside: Beside = SIMS, **settings: Any) -> AsyncIterator[App]:
    """A gateway that serves HTTP and gRPC, once it sees all models."""
    given = {"nats": nats_url, "http_port": 0, "grpc_port": 0, "drain_grace": 5.0, **settings}
    app = App(GatewaySettings(http_host="127.0.0.1", grpc_host="127.0.0.1", **given))
    serving = asyncio.create_task(app.serve())
    try:
        await eventually(lambda: serves(app, beside.models), 60)
        await eventually(lambda: listens(app, http=given["http_port"] is not None))
        yield app
    finally:
        app.stop()
        await serving


def serves(app: App, models: Set[str]) -> bool:
    return app.link.ready and models <= {e.name for e in app.catalog.entries() if e.workers}


def listens(app: App, *, http: bool) -> bool:
    return bool(app.grpc_port and (not http or (app.http is not None and app.http.port)))


async def turns_until(holds: Callable[[], bool]) -> int:
    """Turns of the loop until it holds: a few where nothing waits for a clock."""
    turns = 0
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)
            turns += 1
    return turns


def running(app: App) -> int:
    """Requests that the worker says it runs."""
    beats = [worker.beat for worker in app.link.router.fleet.workers.values()]
    return sum(beat.running for beat in beats if beat is not None)


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


@dataclass
class Event:
    """One server-sent event; `data` is what was said, read as JSON where it is JSON."""

    data: Any = None
    name: str = ""
    id: str = ""
    comment: str = ""


@dataclass
class Http:
    """One connection.

    Attributes:
        chunks: What each chunk of the last body held.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chunks: list[bytes] = field(default_factory=list)

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def abort(self) -> None:
        self.writer.transport.abort()

    async def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request; a body that is no bytes goes as JSON."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        told = {"host": "test", "content-length": str(len(data))}
        if body is not None:
            told["content-type"] = "application/json"
        told |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {told[name]}" for name in told), "", ""]
        self.writer.write("\r\n".join(lines).encode() + data)
        await self.writer.drain()

    async def head(self) -> Answer:
        """The status and headers of the answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines[1:] if line]
        return Answer(int(lines[0].split()[1]), {name.lower(): value for name, value in pairs})

    async def body(self, head: Answer) -> AsyncIterator[bytes]:
        """The body, chunk by chunk."""
        self.chunks = []
        if head.headers.get("transfer-encoding") != "chunked":
            yield await self.reader.readexactly(int(head.headers.get("content-length", 0)))
            return
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            chunk = (await self.reader.readexactly(size + 2))[:-2]
            self.chunks.append(chunk)
            yield chunk
        await self.reader.readexactly(2)

    async def answer(self) -> Answer:
        head = await self.head()
        head.body = b"".join([part async for part in self.body(head)])
        return head

    async def events(self, head: Answer) -> AsyncIterator[Event]:
        """The events of the body."""
        waiting = b""
        async for part in self.body(head):
            waiting += part
            *complete, waiting = waiting.split(b"\n\n")
            for text in complete:
                yield _event(text.decode())
        assert not waiting, waiting


def _event(text: str) -> Event:
    event = Event()
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            event.comment = value
        elif name == "data":
            event.data = json.loads(value) if value.startswith("{") else value
        elif name == "event":
            event.name = value
        elif name == "id":
            event.id = value
    return event


async def call(
    app: App, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    http = await connect(app)
    try:
        await http.send(method, path, body, headers)
        async with asyncio.timeout(60):
            return await http.answer()
    finally:
        http.abort()


async def stream(
    app: App, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> list[Event]:
    """All events of one answer."""
    http = await connect(app)
    try:
        await http.send(method, path, body, headers)
        async with asyncio.timeout(60):
            head = await http.head()
            assert head.headers["content-type"].startswith("text/event-stream"), head
            return [event async for event in http.events(head)]
    finally:
        http.abort()


async def connect(app: App) -> Http:
    assert app.http is not None
    return await Http.connect(app.http.port)
