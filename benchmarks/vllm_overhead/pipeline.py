"""Millstream over gRPC."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.pipeline import Pipeline
from benchmarks.gpu.points import Point, Shape
from benchmarks.http2 import Answer, Http2Client, messages
from benchmarks.vllm_overhead.processes import family
from millstream.v1 import inference_pb2 as pb

PATH = "/millstream.v1.Inference/Generate"


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
        others = set(family(os.getpid()))
        self._pipeline.__enter__()
        self._every = [pid for pid in family(os.getpid()) if pid not in others]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._pipeline.__exit__()

    def pids(self) -> list[int]:
        """Its processes' ids, those without a clock in them: a stopped gateway would be lost."""
        return []

    def every(self) -> list[int]:
        """Ids of all its processes."""
        return self._every

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
