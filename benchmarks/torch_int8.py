"""What int8 weights save and cost in the torch engine, beside float32 and bfloat16 in one run.

    python -m benchmarks.torch_int8

On the bundled model and CPU, with one thread: the bytes of the weights as stored; tokens per second
of the process's CPU time with 1 and with 32 answers at once; and the mean negative log likelihood,
in nats a token, of documents of `training.corpus` that are not in the bundled model's corpus. The
number types take turns; a speed is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from shared.errors import MillstreamError
from shared.wire import Sampling
from training.batches import IGNORED, encode
from training.corpus import documents
from training.train import SEED, unseen
from workers import bundled
from workers.engines.base import Job, Output
from workers.engines.torch import TorchEngine
from workers.engines.torch.batch import Batch
from workers.engines.torch.loading import Loaded, load

DTYPES = ("float32", "bfloat16", "int8")
BATCHES = (1, 32)
PROMPT, ANSWER = 16, 128
CORPUS = 40_000  # documents, of the bundled model's corpus

Labelled = tuple[list[int], list[int]]
"""A document's tokens, and the same as labels where the model is to have written them."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that weights take: of the decoder's linear layers, and of all else."""

    linear: int
    rest: int


def storage(loaded: Loaded) -> Storage:
    """Add up the memory behind a model's weights."""
    weights = loaded.model.weights
    parts = [linear.tensors for layer in weights.layers for linear in layer.linears]
    linear = _bytes(tensor for tensors in parts for tensor in tensors)
    return Storage(linear, _bytes(weights.tensors) - linear)


def held_out(model: Path, count: int, known: Collection[str] = ()) -> list[Labelled]:
    """So many stories and as many conversations of another seed than the corpus's.

    Args:
        model: The checkpoint, for its tokenizer.
        count: How many of each.
        known: Texts to leave out.
    """
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    fresh = unseen(set(known), count, plain=True) + unseen(set(known), count, plain=False)
    return [(tokens.ids, tokens.labels) for tokens in encode(tokenizer, fresh)]


@torch.inference_mode()
def loss(loaded: Loaded, given: Iterable[Labelled]) -> float:
    """Mean nats of a labelled token, by the engine's own forward pass."""
    nats, count = 0.0, 0
    for ids, labels in given:
        wanted = torch.tensor(labels[1:])
        logits = loaded.model.logits(loaded.model.forward(_prompt(loaded, ids[:-1]), loaded.cache))
        nats += F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum").item()
        count += int((wanted != IGNORED).sum())
    return nats / count


def _prompt(loaded: Loaded, ids: list[int]) -> Batch:
    """A whole document as one prompt in slot 0, on CPU."""
    width = len(ids)
    positions = torch.arange(width)
    mask = torch.full((width, width), -torch.inf, dtype=loaded.torch_dtype).triu(1)
    index = loaded.cache.index(torch.zeros_like(positions), positions)
    tokens = torch.tensor(ids)
    return Batch(0, 1, width, tokens, positions, index, width, mask.view(1, 1, width, width))


def _bytes(tensors: Iterable[Tensor]) -> int:
    found = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(found.values())


class Running:
    """An engine, with a sink that waits for the last answer."""

    def __init__(self, model: Path, dtype: str) -> None:
        self._engine = TorchEngine(
            str(model),
            served_name="bench",
            dtype=dtype,
            device="cpu",
            max_batch=max(BATCHES),
            threads=1,
        )
        self._left = 0
        self._next = 0
        self._done = asyncio.Event()

    async def start(self) -> None:
        """Load the model."""
        await self._engine.start(self._take, self._died)

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    async def run(self, batch: int, answer: int) -> float:
        """Generate `batch` answers at once; returns tokens per second of CPU."""
        source = random.Random(0)
        sampling = Sampling(max_tokens=answer, temperature=0.0, ignore_eos=True)
        self._left = batch
        self._done.clear()
        began = time.process_time()
        for _ in range(batch):
            prompt = tuple(source.randrange(16, 300) for _ in range(PROMPT))
            self._engine.submit(Job(self._next, None, None, prompt, sampling))
            self._next += 1
        await self._done.wait()
        return batch * answer / (time.process_time() - began)

    def _take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if output.error is not None:
                raise output.error
            self._left -= output.finish is not None
        if not self._left:
            self._done.set()

    def _died(self, error: MillstreamError) -> None:
        raise error


async def speeds(model: Path, rounds: int, answer: int) -> dict[tuple[str, int], float]:
    """Tokens per second of CPU by dtype and batch, medians."""
    engines = {dtype: Running(model, dtype) for dtype in DTYPES}
    for engine in engines.values():
        await engine.start()
    found: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 1):
        for batch in BATCHES:
            for dtype, engine in engines.items():
                rate = await engine.run(batch, answer)
                if turn:  # the first warms up
                    found.setdefault((dtype, batch), []).append(rate)
    for engine in engines.values():
        await engine.close()
    return {each: statistics.median(rates) for each, rates in found.items()}


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=bundled.PATH, help="checkpoint directory")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each speed")
    parser.add_argument(
        "--documents", type=int, default=150, help="stories for the loss, and as many conversations"
    )
    parser.add_argument("--answer", type=int, default=ANSWER, help="tokens of an answer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {each.render() for each in documents(SEED, CORPUS)}
    given = held_out(options.model, options.documents, known)
    rates = asyncio.run(speeds(options.model, options.rounds, options.answer))
    print("| | linear layers, MB | all weights, MB | loss, nats a token | ", end="")
    print(" | ".join(f"tokens a CPU second, batch {batch}" for batch in BATCHES), "|")
    print("|---" + "|---:" * (3 + len(BATCHES)) + "|")
    for dtype in DTYPES:
        loaded = load(
            str(options.model), served_name="x", dtype=dtype, device="cpu", slots=1, context=None
        )
        size = storage(loaded)
        cells = [f"{size.linear / 1e6:.2f}", f"{(size.linear + size.rest) / 1e6:.2f}"]
        cells.append(f"{loss(loaded, given):.5f}")
        cells += [f"{rates[dtype, batch]:.0f}" for batch in BATCHES]
        print(f"| {dtype} | {' | '.join(cells)} |")
    tokens = sum(label != IGNORED for _, labels in given for label in labels[1:])
    print(f"\n{len(given)} documents, {tokens} tokens; torch {torch.__version__}, one thread")


if __name__ == "__main__":
    main()
