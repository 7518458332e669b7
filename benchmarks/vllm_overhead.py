"""What the way to vLLM costs: AsyncLLM called directly, vLLM's OpenAI server, Millstream over gRPC.

    .venv-vllm/bin/python -m benchmarks.vllm_overhead --out results.json

The same engine, model and load three ways in one run: all three are up, idle ones are stopped
(SIGSTOP), and they take turns, so that what else the machine does hits each alike. A figure is the
median of the rounds. The client keeps bytes while a load runs and reads them afterwards, HTTP and
gRPC alike. Needs vLLM in the interpreter that runs it; see deploy/vllm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import uvloop

from benchmarks.gpu.pipeline import Pipeline
from benchmarks.gpu.points import Point, Shape, table
from benchmarks.http2 import Answer, Http2Client, messages
from millstream.v1 import inference_pb2 as pb
from workers import bundled

ROOT = Path(__file__).resolve().parents[1]
PATH = "/millstream.v1.Inference/Generate"
READY_LIMIT = 400.0


class Way(Protocol):
    """One way to the engine."""

    name: str

    def pids(self) -> list[int]:
        """Its processes' ids."""

    async def load(self, shape: Shape) -> Point:
        """Run a load."""


# ---- AsyncLLM ----------------------------------------------------------------------------------


class Direct:
    """A process that calls AsyncLLM and does as its stdin says."""

    name = "AsyncLLM"

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        self._log = (folder / "direct.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vllm_overhead", "--direct", json.dumps(engine)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._read()

    def pids(self) -> list[int]:
        """Its processes' ids."""
        return list(_family(self._process.pid))

    async def load(self, shape: Shape) -> Point:
        """Run a load."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(shape)) + "\n")
        self._process.stdin.flush()
        return Point(**await asyncio.to_thread(self._read))

    def close(self) -> None:
        """End it."""
        _end(self._process)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                value: dict[str, Any] = json.loads(line)
                return value
        raise RuntimeError(f"the direct engine ended: see {self._log.name}")


async def _direct(engine: dict[str, Any]) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine, disable_log_stats=True))

    async def user(shape: Shape, number: int, ttft: list[float]) -> int:
        tokens = 0
        for turn in range(shape.each):
            params = SamplingParams(
                max_tokens=shape.answer, temperature=0.0, ignore_eos=True,
                output_kind=RequestOutputKind.DELTA,
            )  # fmt: skip
            began = time.perf_counter()
            first = None
            prompt = tokens_input(list(shape.ids(number, turn)))
            async for output in llm.generate(prompt, params, f"{number}.{turn}.{began}"):
                first = first or time.perf_counter() - began
                tokens += len(output.outputs[0].token_ids)
            ttft.append(first or 0.0)
        return tokens

    print("{}", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        shape = Shape(**json.loads(line))
        ttft: list[float] = []
        began = time.perf_counter()
        counts = await asyncio.gather(*(user(shape, place, ttft) for place in range(shape.users)))
        point = Point(shape.users, sum(counts), time.perf_counter() - began, ttft)
        print(json.dumps(asdict(point)), flush=True)
    llm.shutdown()


# ---- vLLM's own server -------------------------------------------------------------------------


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
        return list(_family(self._process.pid))

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
        _end(self._process)

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


# ---- Millstream --------------------------------------------------------------------------------


class Millstream:
    """A gateway, nats-server and a worker with the vLLM engine."""

    name = "Millstream"

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        flags = ["--engine", "vllm", "--model", str(engine["model"]), "--served-name", "bench"]
        for name, value in engine.items():
            if name != "model":
                flags += [
                    "--engine-arg",
                    f"{name}={str(value).lower() if value is True else value}",
                ]
        self._pipeline = Pipeline(folder / "millstream", flags)

    def __enter__(self) -> Millstream:
        """Start it."""
        self._pipeline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._pipeline.__exit__()

    def pids(self) -> list[int]:
        """Its processes' ids, those without a clock in them: a stopped gateway would be lost."""
        return []

    async def load(self, shape: Shape) -> Point:
        """Run a load, all users on one connection."""
        host, port = self._pipeline.target.rsplit(":", 1)
        users = _GrpcUsers(shape)
        await users.connect(host, int(port))
        began = time.perf_counter()
        users.start()
        await users.done
        seconds = time.perf_counter() - began
        return users.point(seconds)


class _GrpcUsers:
    """All users: each asks again when its answer has ended."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._left = [shape.each] * shape.users
        self._who: dict[int, int] = {}
        self._open = 0
        self._sent = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, host: str, port: int) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        _, self._client = await loop.create_connection(
            lambda: Http2Client(PATH, self._ended), host, port
        )
        await self._client.ready

    def start(self) -> None:
        """Everybody asks."""
        for user in range(self._shape.users):
            self._ask(user)

    def _ask(self, user: int) -> None:
        shape = self._shape
        request = pb.GenerateRequest(token_ids=shape.ids(user, self._left[user]))
        request.sampling.max_tokens = shape.answer
        request.sampling.temperature = 0.0
        request.sampling.ignore_eos = True
        self._left[user] -= 1
        self._open += 1
        self._client.call(request.SerializeToString())
        self._who[id(next(reversed(self._client.answers.values())))] = user

    def _ended(self, answer: Answer) -> None:
        self._open -= 1
        user = self._who.pop(id(answer))
        if self._left[user]:
            self._ask(user)
        elif not self._open:
            self.done.set_result(None)

    def point(self, seconds: float) -> Point:
        """Read what came."""
        tokens = 0
        ttft = []
        for answer in self._client.answers.values():
            first = None
            for moment, message in messages(answer.frames, answer.times):
                response = pb.GenerateResponse.FromString(message)
                tokens += len(response.delta.token_ids)
                if first is None and response.delta.token_ids:
                    first = moment
            ttft.append((first or answer.sent_at) - answer.sent_at)
        self._client.close()
        return Point(self._shape.users, tokens, seconds, ttft)


# ---- the run -----------------------------------------------------------------------------------


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))


def _end(process: subprocess.Popen[Any]) -> None:
    family = list(_family(process.pid))
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


async def _measure(ways: Sequence[Way], given: argparse.Namespace) -> dict[str, list[list[Point]]]:
    shapes = [
        Shape(users, max(given.each, 8 // users), given.prompt, given.answer, given.vocabulary)
        for users in given.users
    ]
    found: dict[str, list[list[Point]]] = {way.name: [[] for _ in shapes] for way in ways}
    for round_ in range(given.rounds + 1):
        for way in ways:
            _signal(way.pids(), signal.SIGCONT)
            for place, shape in enumerate(shapes):
                point = await way.load(shape)
                if round_:  # The first is for warming up.
                    found[way.name][place].append(point)
                    print(way.name, json.dumps(point.summary()), flush=True)
            _signal(way.pids(), signal.SIGSTOP)
    for way in ways:
        _signal(way.pids(), signal.SIGCONT)
    return found


def _median(points: Sequence[Point]) -> dict[str, object]:
    ordered = sorted(points, key=lambda point: point.tokens / point.seconds)
    middle = ordered[len(ordered) // 2].summary()
    for name in ("ttft_p50_ms", "ttft_p99_ms"):
        middle[name] = statistics.median(float(str(point.summary()[name])) for point in points)
    return middle


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--direct", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", default=str(bundled.PATH))
    parser.add_argument("--engine", type=json.loads, default={}, help="vLLM arguments as JSON")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.direct:
        uvloop.run(_direct(json.loads(given.direct)))
        return
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    engine = {"model": given.model, "dtype": "float32", "max_model_len": 1024,
              "enforce_eager": True, "max_num_seqs": max(given.users)} | given.engine  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        ways: list[Way] = []
        for kind in (Direct, OpenAi):
            way = kind(folder, engine)
            stack.callback(way.close)
            ways.append(way)
            _signal(way.pids(), signal.SIGSTOP)
        ways.append(stack.enter_context(Millstream(folder, engine)))
        found = uvloop.run(_measure(ways, given))
    rows = [
        (way, _median(points[place]))
        for place in range(len(given.users))
        for way, points in found.items()
    ]
    print(table(f"{given.prompt} + {given.answer} tokens, {given.rounds} rounds", rows))
    if given.out:
        said = {"engine": engine, "rows": [{"way": way} | one for way, one in rows]}
        given.out.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
