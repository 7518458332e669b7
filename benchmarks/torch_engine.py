"""The torch engine against transformers' static batches, on one model in one run.

    python benchmarks/torch_engine.py

Tokens per second without queue or network: 32 answers of equal length, answers of 16 to 256 tokens
(a static batch runs until its longest is done; the engine refills slots), and one answer alone.
The two take turns; a figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers

from shared.errors import MillstreamError
from shared.wire import Sampling
from workers.engines.base import Job, Output
from workers.engines.torch import TorchEngine

BATCH = 32
PROMPT = 16
MODEL = Path(__file__).resolve().parent.parent / "workers" / "bundled" / "model"


@dataclass(frozen=True, slots=True)
class Load:
    """Answers to generate, and what the engine must reach of transformers' tokens per second."""

    name: str
    lengths: Sequence[int]
    target: float


LOADS = [
    Load("32 of equal length", [128] * 32, 0.8),
    Load("64 of mixed length", [random.Random(1).randint(16, 256) for _ in range(64)], 1.2),
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
    """transformers' `generate`, in batches that run until the longest answer is done."""

    def __init__(self, model: Path) -> None:
        load: Any = transformers.AutoModelForCausalLM.from_pretrained
        self._model = load(model, dtype=torch.float32)
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0

    def run(self, prompts: list[list[int]], lengths: Sequence[int]) -> float:
        """Generate; returns the tokens asked for per second."""
        began = time.perf_counter()
        for start in range(0, len(prompts), BATCH):
            ids = torch.tensor(prompts[start : start + BATCH])
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max(lengths[start : start + BATCH]),
                do_sample=False,
            )
        return sum(lengths) / (time.perf_counter() - began)


async def main() -> None:
    """Run all loads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=MODEL, help="checkpoint directory")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--threads", type=int, help="of the engine; its own choice if not given")
    options = parser.parse_args()
    ours, theirs = Ours(options.model, options.threads), Theirs(options.model)
    await ours.start()
    print(f"{'load':<20} {'engine tok/s':>13} {'transformers':>13} {'ratio':>6} {'target':>7}")
    for load in LOADS:
        source = random.Random(0)
        prompts = [[source.randrange(16, 300) for _ in range(PROMPT)] for _ in load.lengths]
        mine, others = [], []
        for turn in range(options.rounds + 1):
            results = await ours.run(prompts, load.lengths), theirs.run(prompts, load.lengths)
            if turn:  # the first warms both up
                mine.append(results[0])
                others.append(results[1])
        fast, slow = statistics.median(mine), statistics.median(others)
        print(f"{load.name:<20} {fast:13.0f} {slow:13.0f} {fast / slow:6.2f} {load.target:7.1f}")
    await ours.close()


if __name__ == "__main__":
    asyncio.run(main())
