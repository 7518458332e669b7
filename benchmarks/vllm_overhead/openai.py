"""vLLM's own server, which speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.gpu.points import Point, Shape
from benchmarks.vllm_overhead.processes import ROOT, end, family

READY_LIMIT = 400.0


class OpenAi:
    """`vllm serve`."""

    name = "vLLM's server"

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        flags = ["--host", "127.0.0.1", "--port", str(self._port), "--disable-uvicorn-access-log",
                 "--served-model-name", "bench", "--disable-log-stats"]  # fmt: skip
        for name, value in engine.items():
            flag = "--" + name.replace("_", "-")
            flags += [flag] if value is True else [flag, str(value)]
        with (folder / "openai.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + READY_LIMIT
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "openai.log").read_text(errors="replace")[-3000:])
            time.sleep(0.2)

    def pids(self) -> list[int]:
        """Its processes' ids."""
        return list(family(self._process.pid))

    every = pids

    async def load(self, shape: Shape) -> Point:
        """Run a load, a connection a user."""
        answers: list[tuple[float, float, bytes]] = []
        users = [_HttpUser(shape, place, answers) for place in range(shape.users)]
        for user in users:
            await user.connect(self._port)
        began = time.perf_counter()
        for user in users:
            user.ask()
        await asyncio.gather(*(user.done for user in users))
        seconds = time.perf_counter() - began
        tokens = 0
        for _, _, data in answers:
            usage = data.rindex(b'"completion_tokens":')
            tokens += int(data[usage + 20 : usage + 30].split(b",")[0].split(b"}")[0])
        return Point(shape.users, tokens, seconds, [first - sent for sent, first, _ in answers])

    def close(self) -> None:
        """End it."""
        end(self._process)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1):
                return True
        except OSError:
            return False


class _HttpUser(asyncio.Protocol):
    """One user's connection: asks, keeps what comes, asks again."""

    def __init__(
        self, shape: Shape, number: int, answers: list[tuple[float, float, bytes]]
    ) -> None:
        self._shape, self._number, self._answers = shape, number, answers
        self._turn = 0
        self._parts: list[bytes] = []
        self._sent = 0.0
        self._first: float | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, port: int) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
        self._transport: Any = transport

    def ask(self) -> None:
        """Send the next request."""
        shape = self._shape
        body = json.dumps(
            {
                "model": "bench", "prompt": list(shape.ids(self._number, self._turn)),
                "max_tokens": shape.answer, "temperature": 0.0, "ignore_eos": True,
                "stream": True, "stream_options": {"include_usage": True},
            }
        ).encode()  # fmt: skip
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._turn += 1
        self._parts, self._first = [], None
        self._sent = time.perf_counter()
        self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        if self._first is None and b"data: {" in data:
            self._first = time.perf_counter()
        self._parts.append(data)
        if b"[DONE]" not in data and b"[DONE]" not in b"".join(self._parts[-2:])[-96:]:
            return
        self._answers.append((self._sent, self._first or self._sent, b"".join(self._parts)))
        if self._turn < self._shape.each:
            self.ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end it is an error."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed"))
