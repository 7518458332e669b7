"""The torch engine on a GPU with a Llama of 1.24 B parameters: directly, and through the pipeline.

    python -m benchmarks.gpu.torch_llama1b --out results.json

Makes the checkpoint (random weights, bfloat16, the bundled tokenizer), then measures tokens per
second and time to first token at each concurrency: the engine called in this process, and the
same engine in a worker behind nats-server, a gateway and client processes. Needs torch with a GPU,
safetensors, transformers and what `pip install millstream` brings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.gpu.checkpoint import SIZES, make
from benchmarks.gpu.pipeline import Pipeline
from benchmarks.gpu.points import Point, Shape, table
from shared.errors import MillstreamError
from shared.wire import Sampling
from workers.engines.base import Job, Output
from workers.engines.torch import TorchEngine

CONTEXT = 1024
VOCABULARY = 1500


@dataclass(slots=True)
class _Waiting:
    began: float
    first: float | None = None
    tokens: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Direct:
    """The engine in this process."""

    def __init__(self, model: Path, args: dict[str, str]) -> None:
        self.engine = TorchEngine.from_args(str(model), "bench", args)
        self._open: dict[int, _Waiting] = {}
        self._next = 0

    async def start(self) -> None:
        """Load the model."""
        await self.engine.start(self._take, self._died)

    async def load(self, shape: Shape) -> Point:
        """Run a load."""
        ttft: list[float] = []
        steps = self.engine.observe().steps
        began = time.perf_counter()
        counts = await asyncio.gather(
            *(self._user(shape, user, ttft) for user in range(shape.users))
        )
        seconds = time.perf_counter() - began
        done = self.engine.observe().steps - steps
        return Point(shape.users, sum(counts), seconds, ttft, steps=done)

    async def _user(self, shape: Shape, user: int, ttft: list[float]) -> int:
        tokens = 0
        for number in range(shape.each):
            self._next += 1
            waiting = self._open[self._next] = _Waiting(time.perf_counter())
            sampling = Sampling(max_tokens=shape.answer, temperature=0.0, ignore_eos=True)
            ids = shape.ids(user, number)
            self.engine.submit(Job(self._next, None, None, ids, sampling))
            await waiting.done.wait()
            assert waiting.tokens == shape.answer, "an answer is short"
            ttft.append((waiting.first or waiting.began) - waiting.began)
            tokens += waiting.tokens
        return tokens

    def _take(self, outputs: Sequence[Output]) -> None:
        now = time.perf_counter()
        for output in outputs:
            if output.error is not None:
                raise output.error
            waiting = self._open[output.job]
            if output.token_ids and waiting.first is None:
                waiting.first = now
            waiting.tokens += len(output.token_ids)
            if output.finish is not None:
                del self._open[output.job]
                waiting.done.set()

    def _died(self, error: MillstreamError) -> None:
        raise error


def _shapes(given: argparse.Namespace) -> list[Shape]:
    return [
        Shape(users, max(given.each, 8 // users), given.prompt, given.answer, VOCABULARY)
        for users in given.users
    ]


async def _direct(model: Path, given: argparse.Namespace, args: dict[str, str]) -> list[Point]:
    direct = Direct(model, args)
    await direct.start()
    try:
        await direct.load(Shape(8, 1, given.prompt, 32, VOCABULARY))
        points = []
        for shape in _shapes(given):
            points.append(await direct.load(shape))
            print("direct", json.dumps(points[-1].summary()), flush=True)
        return points
    finally:
        await direct.engine.close()


def _piped(model: Path, given: argparse.Namespace, args: dict[str, str]) -> list[Point]:
    flags = ["--engine", "torch", "--model", str(model), "--served-name", "bench"]
    for name, value in args.items():
        flags += ["--engine-arg", f"{name}={value}"]
    with Pipeline(given.work / "pipeline", flags) as pipeline:
        pipeline.load(Shape(8, 1, given.prompt, 32, VOCABULARY), 1)
        points = []
        for shape in _shapes(given):
            points.append(pipeline.load(shape, given.clients))
            print("pipeline", json.dumps(points[-1].summary()), flush=True)
        return points


def _machine() -> dict[str, object]:
    cuda = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=sorted(SIZES), default="1b")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--each", type=int, default=2, help="requests of one user")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--clients", type=int, default=6, help="client processes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=None, help="for the checkpoint and logs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        given.work = given.work or Path(scratch)
        model = given.work / "model"
        on = "cuda" if torch.cuda.is_available() else "cpu"
        parameters = make(model, given.size, context=CONTEXT, device=on)
        print(f"{parameters / 1e9:.3f} B parameters in {model}", flush=True)
        args = {
            "dtype": "bfloat16" if on == "cuda" else "float32",
            "device": given.device,
            "max_batch": str(max(given.users)),
        }
        direct = asyncio.run(_direct(model, given, args))
        piped = _piped(model, given, args)
    rows = []
    for one, other in zip(direct, piped, strict=True):
        rows += [("engine", one.summary()), ("pipeline", other.summary())]
    title = f"torch engine, Llama {given.size}, {given.prompt} + {given.answer} tokens"
    print(table(title, rows))
    given.out.write_text(
        json.dumps(
            {
                "machine": _machine(),
                "parameters": parameters,
                "arguments": args,
                "prompt": given.prompt,
                "answer": given.answer,
                "engine": [point.summary() for point in direct],
                "pipeline": [point.summary() for point in piped],
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
