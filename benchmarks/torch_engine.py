"""The torch engine against transformers' static batches, on one model in one run.

    python -m benchmarks.torch_engine

Tokens per second without queue or network: 32 answers of equal length, answers of 16 to 256 tokens
(a static batch runs until its longest is done; the engine refills slots), and one answer alone.
The two take turns; a figure is the median of the rounds. transformers runs with one thread and
with all cores, and the better of the two counts.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from shared.errors import MillstreamError
from shared.wire import Sampling
from workers import bundled
from workers.engines.base import Job, Output
from workers.engines.torch import TorchEngine

BATCH = 32
PROMPT = 16


@dataclass(frozen=True, slots=True)
class Load:
    """Answers to generate, and what the engine must reach of transformers' tokens per second."""

    name: str
    lengths: Sequence[int]
    target: float


_lengths = random.Random(1)
LOADS = [
    Load("32 of equal length", [128] * 32, 0.8),
    Load("64 of mixed length", [_lengths.randint(16, 256) for _ in range(64)], 1.2),
    Load("one alone", [128], 1.0),
]


class Ours:
    """The engine, with a sink that waits for the last answer."""

    def __init__(self, model: Path, threads: int | None) -> None:
        self._engine = TorchEngine(
            str(model), served_name="bench", max_batch=BATCH, threads=threads, device="cpu"
        )
        self._left = 0
        self._tokens = 0
        self._done = asyncio.Event()
        self._next = 0

    async def start(self) -> None:
        """Load the model."""
        await self._engine.start(self._take, self._died)

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    async def run(self, prompts: list[list[int]], lengths: Sequence[int]) -> float:
        """Generate; returns tokens per second."""
        self._left, self._tokens = len(prompts), 0
        self._done.clear()
        began = time.perf_counter()
        for prompt, length in zip(prompts, lengths, strict=True):
            sampling = Sampling(max_tokens=length, temperature=0.0, ignore_eos=True)
            self._engine.submit(Job(self._next, None, None, tuple(prompt), sampling))
            self._next += 1
        await self._done.wait()
        assert self._tokens == sum(lengths), "an answer is short"
        return self._tokens / (time.perf_counter() - began)

    def _take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if output.error is not None:
                raise output.error
            self._tokens += len(output.token_ids)
            self._left -= output.finish is not None
        if not self._left:
            self._done.set()

    def _died(self, error: MillstreamError) -> None:
        raise error


class Theirs:
    """transformers' `generate`, in batches that run until the longest answer is done.

    It has a process of its own, since torch's number of threads is the process's.
    """

    def __init__(self, model: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, spawn, initializer=_load, initargs=(model,))

    def run(self, prompts: list[list[int]], lengths: Sequence[int], threads: int) -> float:
        """Generate; returns the tokens asked for per second."""
        return self._process.submit(_generate, prompts, lengths, threads).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


_model: Any = None  # in the process of `Theirs`


def _load(path: Path) -> None:
    global _model
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    _model = load(path, dtype=torch.float32)
    _model.generation_config.eos_token_id = None
    _model.generation_config.pad_token_id = 0


def _generate(prompts: list[list[int]], lengths: Sequence[int], threads: int) -> float:
    torch.set_num_threads(threads)
    began = time.perf_counter()
    for start in range(0, len(prompts), BATCH):
        ids = torch.tensor(prompts[start : start + BATCH])
        _model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max(lengths[start : start + BATCH]),
            do_sample=False,
        )
    return sum(lengths) / (time.perf_counter() - began)


async def main() -> None:
    """Run all loads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=bundled.PATH, help="checkpoint directory")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--threads", type=int, help="of the engine; its own choice if not given")
    options = parser.parse_args()
    cores = torch.get_num_threads()
    ours, theirs = Ours(options.model, options.threads), Theirs(options.model)
    await ours.start()
    print(f"{'load':<20} {'engine tok/s':>13} {'transformers':>13} {'ratio':>6} {'target':>7}")
    for load in LOADS:
        source = random.Random(0)
        prompts = [[source.randrange(16, 300) for _ in range(PROMPT)] for _ in load.lengths]
        mine: list[float] = []
        others: dict[int, list[float]] = {threads: [] for threads in {1, cores}}
        for turn in range(options.rounds + 1):
            rate = await ours.run(prompts, load.lengths)
            rates = {threads: theirs.run(prompts, load.lengths, threads) for threads in others}
            if turn:  # the first warms both up
                mine.append(rate)
                for threads, value in rates.items():
                    others[threads].append(value)
        fast = statistics.median(mine)
        slow, threads = max((statistics.median(rates), each) for each, rates in others.items())
        print(
            f"{load.name:<20} {fast:13.0f} {slow:13.0f} {fast / slow:6.2f} {load.target:7.1f}"
            f"   transformers at its best, with {threads} of {cores} threads",
            flush=True,
        )
    await ours.close()
    theirs.close()


if __name__ == "__main__":
    asyncio.run(main())
