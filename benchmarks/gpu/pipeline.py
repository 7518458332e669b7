"""The whole stack as processes: nats-server, a gateway, a worker, and clients that load it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from benchmarks.gpu.points import Point, Shape
from millstream import Client
from millstream.nats_server import NatsServer
from shared.errors import MillstreamError

ROOT = Path(__file__).resolve().parents[2]
READY_LIMIT = 400.0
START_AFTER = 3.0
"""Seconds that client processes get to import and connect."""

_TICK = os.sysconf("SC_CLK_TCK")


class Pipeline:
    """A gateway and a worker around one engine.

    Args:
        directory: For logs and the queue.
        worker: The worker's flags: engine, model, engine arguments.
        python: The worker's interpreter.
    """

    def __init__(
        self, directory: Path, worker: Sequence[str], python: str = sys.executable
    ) -> None:
        self._directory = directory
        self._worker = list(worker)
        self._python = python
        self._nats = NatsServer(directory / "nats")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.target = ""

    def __enter__(self) -> Self:
        """Start everything and wait until the model is served."""
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._nats.start()
            common = ["--nats", self._nats.url, "--log-level", "warning"]
            self._spawn("gateway", sys.executable, "-m", "gateway", "--grpc-host", "127.0.0.1",
                        "--grpc-port", "0", "--max-queue", "10000", *common)  # fmt: skip
            self._spawn("worker", self._python, "-m", "workers", "--name", "bench",
                        *self._worker, *common)  # fmt: skip
            self.target = self._ready("gateway")
            self._ready("worker")
            asyncio.run(self._served())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, the newest first."""
        for process in reversed(self._processes.values()):
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._nats.stop()

    def load(self, shape: Shape, processes: int) -> Point:
        """Run a load from several client processes."""
        processes = min(processes, shape.users)
        start = time.time() + START_AFTER
        before: dict[str, float] = {}
        clients = []
        for place in range(processes):
            users = shape.users // processes + (place < shape.users % processes)
            first = place * 100_000
            command = [sys.executable, "-m", "benchmarks.gpu.client", self.target, str(start),
                       str(first), str(users), json.dumps(asdict(shape))]  # fmt: skip
            clients.append(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=_environment())
            )
        time.sleep(max(0.0, start - 0.2 - time.time()))
        before = self._cpu()
        said = [json.loads(client.communicate(timeout=500)[0]) for client in clients]
        after = self._cpu()
        seconds = max(one["ended"] for one in said) - min(one["began"] for one in said)
        return Point(
            shape.users,
            sum(one["tokens"] for one in said),
            seconds,
            [value for one in said for value in one["ttft"]],
            {name: after[name] - before[name] for name in before},
        )

    def _cpu(self) -> dict[str, float]:
        """CPU seconds of each process so far, its children and theirs included."""
        pids = {name: process.pid for name, process in self._processes.items()}
        assert self._nats.process is not None
        pids["nats"] = self._nats.process.pid
        return {name: _cpu_of(pid) for name, pid in pids.items()}

    def _spawn(self, role: str, *command: str) -> None:
        ready = self._directory / f"{role}.ready"
        ready.unlink(missing_ok=True)
        with (self._directory / f"{role}.log").open("wb") as log:
            self._processes[role] = subprocess.Popen(
                [*command, "--ready-file", str(ready)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(),
            )  # fmt: skip

    def _ready(self, role: str) -> str:
        path = self._directory / f"{role}.ready"
        deadline = time.monotonic() + READY_LIMIT
        while not (path.exists() and path.read_text()):
            if self._processes[role].poll() is not None or time.monotonic() > deadline:
                said = (self._directory / f"{role}.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{role} did not start:\n{said}")
            time.sleep(0.05)
        return path.read_text().strip()

    async def _served(self) -> None:
        deadline = time.monotonic() + 30.0
        async with Client(self.target) as client:
            while time.monotonic() < deadline:
                try:
                    if any(model.workers for model in await client.models()):
                        return
                except MillstreamError:
                    pass  # The gateway has not found NATS yet.
                await asyncio.sleep(0.05)
        raise RuntimeError("the gateway does not see the worker")


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    total, todo = 0.0, [pid]
    while todo:
        one = todo.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / _TICK
            for task in Path(f"/proc/{one}/task").iterdir():
                children = task / "children"
                if children.exists():
                    todo += [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
