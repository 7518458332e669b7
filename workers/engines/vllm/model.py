"""Whatever a checkpoint is on vLLM: a language model, or a function that embeds texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from shared.errors import MillstreamError
from workers.engines.base import Engine, Job, Observation, Sink
from workers.engines.vllm.embedder import pools
from workers.engines.vllm.embedding import EmbeddingEngine
from workers.engines.vllm.engine import VllmEngine


class VllmModel(Engine):
    """Looks at the checkpoint when it starts, and passes everything on to the engine for it.

    Args:
        model: A directory, or the id of a model on the hub.
        served_name: What requests call it.
        args: vLLM's engine arguments under its own names, as strings; see `arguments`.
    """

    def __init__(self, model: str, served_name: str, args: Mapping[str, str]) -> None:
        self._model = model
        self._served_name = served_name
        self._args = dict(args)
        self._engine: Engine | None = None

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Load the model; see `Engine.start`."""
        embeds = await asyncio.to_thread(pools, self._model, self._args)
        engine = (EmbeddingEngine if embeds else VllmEngine)(
            self._model, self._served_name, self._args
        )
        self._engine = engine
        await engine.start(sink, died)
        self.card = engine.card

    def submit(self, job: Job) -> None:
        """Take a job."""
        assert self._engine is not None
        self._engine.submit(job)

    def abort(self, job_id: int) -> None:
        """End a job."""
        if self._engine is not None:
            self._engine.abort(job_id)

    def observe(self) -> Observation:
        """Say how it stands."""
        return Observation() if self._engine is None else self._engine.observe()

    async def close(self) -> None:
        """Stop vLLM's processes."""
        if self._engine is not None:
            await self._engine.close()
