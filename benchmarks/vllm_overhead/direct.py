"""AsyncLLM called directly, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gpu.points import Point, Shape
from benchmarks.vllm_overhead.processes import ROOT, end, family


class Direct:
    """A process that calls AsyncLLM and does as its stdin says."""

    name = "AsyncLLM"

    def __init__(self, folder: Path, engine: dict[str, Any]) -> None:
        self._log = (folder / "direct.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vllm_overhead.direct", json.dumps(engine)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._read()

    def pids(self) -> list[int]:
        """Its processes' ids."""
        return list(family(self._process.pid))

    every = pids

    async def load(self, shape: Shape) -> Point:
        """Run a load."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(shape)) + "\n")
        self._process.stdin.flush()
        return Point(**await asyncio.to_thread(self._read))

    def close(self) -> None:
        """End it."""
        end(self._process)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                value: dict[str, Any] = json.loads(line)
                return value
        raise RuntimeError(f"the direct engine ended: see {self._log.name}")


async def run(engine: dict[str, Any]) -> None:
    """Be the process: a load for every line of stdin."""
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


if __name__ == "__main__":
    uvloop.run(run(json.loads(sys.argv[1])))
