"""Runs a function of an app as a worker would: jobs in, items out, no NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shared.errors import MillstreamError
from shared.typed import Typed, load
from shared.values import from_message, to_message
from shared.wire import Sampling
from workers.app.app import App
from workers.app.engines import engine
from workers.app.running import RunningApp
from workers.engines.base import Engine, Job, Output


class Bench:
    """One engine and what its sink heard.

    Attributes:
        engine: The engine.
        batches: Each call of the sink.
        heard: Items by job.
        ended: Jobs that ended, with their errors.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.typed = Typed(load(engine.card.signature))
        self.batches: list[Sequence[Output]] = []
        self.heard: dict[int, list[bytes]] = {}
        self.ended: dict[int, MillstreamError | None] = {}
        self._changed = asyncio.Event()
        self._next = 0
        self.on_output: Callable[[Output], None] = lambda _: None

    def sink(self, outputs: Sequence[Output]) -> None:
        self.batches.append(outputs)
        for output in outputs:
            self.heard.setdefault(output.job, []).extend(output.items)
            if output.error is not None or output.finish is not None:
                assert output.job not in self.ended
                self.ended[output.job] = output.error
            self.on_output(output)
        self._changed.set()

    def submit(self, _job: dict[str, Any] | None = None, /, **inputs: Any) -> int:
        """Begin a call; returns the job's id."""
        self._next += 1
        call = to_message(self.typed.request, inputs).SerializeToString()
        given: dict[str, Any] = {"request_id": f"r{self._next}", "call": call} | (_job or {})
        self.engine.submit(Job(self._next, None, None, None, Sampling(), **given))
        return self._next

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the sink hears."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def call(self, _job: dict[str, Any] | None = None, /, **inputs: Any) -> list[Any]:
        """Run a call to its end; its items, or what went wrong."""
        job = self.submit(_job, **inputs)
        await self.until(lambda: job in self.ended)
        if (error := self.ended[job]) is not None:
            raise error
        return self.items(job)

    def items(self, job: int) -> list[Any]:
        """What was heard of a job, as plain Python."""
        messages = [self.typed.response.FromString(item) for item in self.heard.get(job, [])]
        if self.typed.signature.streaming:
            skip = messages[0].index if messages else 0
            assert [m.index for m in messages] == list(range(skip, skip + len(messages)))
        return [from_message(message).get("result") for message in messages]


@asynccontextmanager
async def bench(app: App, name: str = "") -> AsyncIterator[Bench]:
    """The engine of an app's only function, or of the named one, at work."""
    served = name or next(iter(app.models))
    made = Bench(engine(app.models[served], RunningApp(app)))
    try:
        await made.engine.start(made.sink, lambda error: None)
        yield made
    finally:
        await made.engine.close()


async def calls(running: Bench, *inputs: dict[str, Any]) -> list[Any]:
    """Calls at once: each one's items, or its error."""
    jobs = [running.submit(**one) for one in inputs]
    await running.until(lambda: all(job in running.ended for job in jobs))
    return [running.ended[job] or running.items(job) for job in jobs]
