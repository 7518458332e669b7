"""The systems that are measured, each as real processes: Millstream, BlazeRPC, bare grpclib."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from benchmarks.accounting import ROOT, published
from benchmarks.child import SystemFault
from benchmarks.loads import Load, Order
from millstream import Client
from millstream.nats_server import NatsServer
from millstream.v1 import inference_pb2 as pb
from shared.errors import MillstreamError

BLAZERPC = "2.2.1"
MOST_TOKENS = 4096
READY_LIMIT = 30.0
PATH = "/millstream.v1.Inference/Generate"


class System:
    """What a load is sent to.

    Args:
        directory: For its files; made if missing.
        step_ms: Between two tokens of an answer; 0 is free-running.

    Attributes:
        name: In results.
        front: The role of the process that faces the client.
        pids: Process ids by role.
    """

    name: ClassVar[str]
    front: ClassVar[str] = "server"
    path: ClassVar[str] = PATH
    wrapped: ClassVar[bool] = False

    def __init__(self, directory: Path, step_ms: float) -> None:
        self.directory = directory
        self.step_ms = step_ms
        self.pids: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._address = ""

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """End the processes, the newest first."""
        for process in reversed(self._processes.values()):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def order(self, load: Load) -> Order:
        """A load as an order for the client."""
        host, port = self._address.rsplit(":", 1)
        request = self._request(load.tokens).hex()
        return Order(host, int(port), self.path, request, self.wrapped, load)

    def nats_messages(self) -> int | None:
        """Messages that the worker has published so far, or None where there is no NATS."""
        return None

    def _start(self) -> None:
        raise NotImplementedError

    def _request(self, tokens: int) -> bytes:
        request = pb.GenerateRequest(model="sim", prompt="p")
        request.sampling.max_tokens = tokens
        return request.SerializeToString()

    def _spawn(self, role: str, command: Sequence[str]) -> Path:
        """Start a process that will write the returned ready file."""
        ready = self.directory / f"{role}.ready"
        with (self.directory / f"{role}.log").open("wb") as log:
            process = subprocess.Popen(
                [part.replace("READY_FILE", str(ready)) for part in command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._processes[role] = process
        self.pids[role] = process.pid
        return ready

    def _await(self, role: str, ready: Path) -> str:
        """Wait for a ready file and return what it says."""
        deadline = time.monotonic() + READY_LIMIT
        while not (ready.exists() and ready.read_text()):
            if self._processes[role].poll() is not None or time.monotonic() > deadline:
                raise SystemFault(f"{self.name}: {role} did not start:\n{self._said(role)}")
            time.sleep(0.01)
        return ready.read_text().strip()

    def _said(self, role: str) -> str:
        return (self.directory / f"{role}.log").read_text(errors="replace")[-2000:]


class Millstream(System):
    """Gateway, NATS server and a worker with the sim engine."""

    name = "millstream"
    front = "gateway"

    gateway_flags: ClassVar[tuple[str, ...]] = ()
    max_batch: ClassVar[int] = 1024

    def __init__(self, directory: Path, step_ms: float) -> None:
        super().__init__(directory, step_ms)
        self._nats = NatsServer(directory / "nats", extra='http: "127.0.0.1:-1"')
        self._monitor = ""

    def _start(self) -> None:
        self._nats.start()
        assert self._nats.process is not None
        self.pids["broker"] = self._nats.process.pid
        ports = self._nats.directory / f"nats-server_{self._nats.process.pid}.ports"
        self._monitor = str(json.loads(ports.read_text())["monitoring"][0])
        listen = ("--grpc-host", "127.0.0.1", "--grpc-port", "0")
        gateway = self._python("gateway", "gateway", *listen, *self.gateway_flags)
        worker = self._python("worker", "workers", *self._worker())
        self._address = self._await("gateway", gateway)
        self._await("worker", worker)
        asyncio.run(self._served())

    def _worker(self) -> list[str]:
        sim = ["--name", "bench", "--engine", "sim"]
        most = f"max_batch={self.max_batch}"
        return [*sim, "--engine-arg", most, "--engine-arg", f"step_ms={self.step_ms}"]

    def _python(self, role: str, module: str, *flags: str) -> Path:
        common = ("--nats", self._nats.url, "--log-level", "warning", "--ready-file", "READY_FILE")
        return self._spawn(role, [sys.executable, "-m", module, *flags, *common])

    async def _served(self) -> None:
        """Wait until the gateway knows the model."""
        deadline = time.monotonic() + READY_LIMIT
        async with Client(self._address) as client:
            while time.monotonic() < deadline:
                try:
                    if any(model.workers for model in await client.models()):
                        return
                except MillstreamError:
                    pass
                await asyncio.sleep(0.02)
        raise SystemFault(f"the gateway sees no worker:\n{self._said('worker')}")

    def nats_messages(self) -> int:
        """Messages that the worker has published so far."""
        return published(self._monitor, "bench-")

    def stop(self) -> None:
        """End the processes, NATS last."""
        super().stop()
        self._nats.stop()


class _Direct(System):
    """A server that needs no worker: it sends messages from a file."""

    def _start(self) -> None:
        messages = self.directory / "messages.json"
        messages.write_text(json.dumps([delta(index).hex() for index in range(MOST_TOKENS)]))
        self._address = self._await("server", self._serve(messages))

    def _serve(self, messages: Path) -> Path:
        raise NotImplementedError


class BareGrpclib(_Direct):
    """grpclib and uvloop, sending bytes."""

    name = "grpclib"

    def _serve(self, messages: Path) -> Path:
        command = [sys.executable, "-m", "benchmarks.servers.bare", "READY_FILE"]
        return self._spawn("server", [*command, str(messages), str(self.step_ms)])


class BlazeRpc(_Direct):
    """BlazeRPC in its own virtual environment, which is made where it is missing."""

    name = "blazerpc"
    path = "/blazerpc.InferenceService/PredictTokens"
    wrapped = True

    def _serve(self, messages: Path) -> Path:
        command = [str(blazerpc_python()), str(ROOT / "benchmarks" / "servers" / "blaze.py")]
        return self._spawn("server", [*command, "READY_FILE", str(messages), str(self.step_ms)])

    def _request(self, tokens: int) -> bytes:
        # Field 1, a varint; two bytes hold what is below 2^14.
        return bytes((0x08, tokens & 0x7F | 0x80, tokens >> 7))


def delta(index: int) -> bytes:
    """The message of one token, as the gateway sends it."""
    piece = pb.Delta(index=index, text=f" {index}", token_ids=[index])
    return pb.GenerateResponse(delta=piece).SerializeToString()


def blazerpc_python() -> Path:
    """The interpreter of BlazeRPC's virtual environment, made on demand."""
    home = ROOT / ".venv-blazerpc"
    python = home / "bin" / "python"
    done = home / f".ready-{BLAZERPC}"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", f"blazerpc=={BLAZERPC}"], check=True
        )
        done.touch()
    return python
