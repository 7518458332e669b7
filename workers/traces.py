"""An exec's spans at the worker: prefill until the first token, decode until the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.errors import MillstreamError
from shared.tracing import Span, Tracing, configure
from workers.engines.base import Engine, Job, Observation, Output, Sink


def traced(engine: Engine, name: str) -> Engine:
    """The engine, with spans around its jobs where traces are on.

    Args:
        engine: What generates.
        name: The worker's.
    """
    tracing = configure("worker", name)
    return engine if tracing is None else TracedEngine(engine, tracing)


@dataclass(slots=True)
class _Open:
    """A job under way.

    Attributes:
        span: Its own.
        began: When it was submitted.
        steps: The engine's step counter then.
        open: Choices that have not ended.
        first: When its first token came, or None.
        tokens: So many came.
    """

    span: Span
    began: float
    steps: int
    open: int
    first: float | None = None
    tokens: int = 0


class TracedEngine(Engine):
    """Passes everything on.

    Args:
        engine: What generates.
        tracing: Where spans go.
    """

    def __init__(self, engine: Engine, tracing: Tracing) -> None:
        self._engine = engine
        self._tracing = tracing
        self._open: dict[int, _Open] = {}
        self._sink: Sink = lambda _outputs: None

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Load the model and begin to step."""
        self._sink = sink
        self._engine.on_room = self.on_room
        await self._engine.start(self._outputs, died)
        self.card = self._engine.card

    def submit(self, job: Job) -> None:
        """Take a job and begin its span."""
        delivered = sum(map(len, job.delivered))
        span = self._tracing.begin(
            "engine",
            job.traceparent,
            {"millstream.resumed_at": delivered, "millstream.engine": self.card.engine},
        )
        steps = self._engine.observe().steps
        self._open[job.id] = _Open(span, time.monotonic(), steps, job.sampling.n)
        self._engine.submit(job)

    def abort(self, job_id: int) -> None:
        """End a job and its span."""
        self._end(job_id, "aborted")
        self._engine.abort(job_id)

    def observe(self) -> Observation:
        """Say how it stands."""
        return self._engine.observe()

    def room(self) -> int | None:
        """How many more jobs could start now."""
        return self._engine.room()

    def spare(self) -> int | None:
        """As the engine says."""
        return self._engine.spare()

    def window(self, job_id: int, is_open: bool) -> None:
        """A function's reader is behind, or has caught up."""
        self._engine.window(job_id, is_open)

    async def close(self) -> None:
        """Stop stepping and end what is open."""
        await self._engine.close()
        for job_id in list(self._open):
            self._end(job_id, "closed")

    def _outputs(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            known = self._open.get(output.job)
            if known is None:
                continue
            if output.token_ids or output.items:
                known.tokens += len(output.token_ids) + len(output.items)
                if known.first is None:
                    known.first = time.monotonic()
            if output.error is not None:
                self._end(output.job, output.error.kind)
            elif output.finish is not None:
                known.open -= 1
                if not known.open:
                    self._end(output.job, "")
        self._sink(outputs)

    def _end(self, job_id: int, error: str) -> None:
        known = self._open.pop(job_id, None)
        if known is None:
            return
        now = time.monotonic()
        first = now if known.first is None else known.first
        known.span.child("prefill", known.began, first)
        if known.first is not None:
            known.span.child("decode", first, now, {"millstream.tokens": known.tokens})
        steps = self._engine.observe().steps - known.steps
        known.span.end(error, {"millstream.steps": steps})
