"""The engine of a function: each job is a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shared import features, typed
from shared.errors import MillstreamError
from shared.wire import ModelCard
from workers.app.calls import Call
from workers.app.outbox import Outbox
from workers.app.running import RunningApp
from workers.app.served import Served
from workers.app.signatures import ModelSpec
from workers.engines.base import Engine, Job, Observation, Sink

log = structlog.get_logger(__name__)

CLOSE_LIMIT = 2.0
"""Seconds for cancelled functions to clean up when the worker ends."""


def card(model: ModelSpec, max_batch: int) -> ModelCard:
    """What is announced of a function."""
    found = [features.PREDICT]
    if model.signature.streaming:
        found.append(features.STREAM)
    found.append(features.RESUME if model.idempotent else features.ONCE)
    if model.wait:
        found.append(features.WAIT)
    return ModelCard(
        name=model.served_name,
        engine="app",
        context_length=0,
        vocab_size=0,
        dtype="",
        fingerprint=typed.fingerprint(model.signature),
        features=tuple(found),
        max_batch=max_batch,
        signature=typed.dump(model.signature),
    )


class AppEngine(Engine):
    """Calls a function once for each job, many at once.

    A job's slot is free once its function has ended, which after an abort may be later: a sync
    function cannot be interrupted.

    Args:
        model: The function.
        app: What it is part of.
    """

    def __init__(self, model: ModelSpec, app: RunningApp) -> None:
        self._model = model
        self._app = app
        self.card = card(model, model.concurrency)
        self._entered = False
        self._served: Served | None = None
        self._outbox: Outbox | None = None
        self._calls: dict[int, tuple[Call, asyncio.Task[None]]] = {}
        self._waiting: dict[int, Job] = {}
        self._steps = 0

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Run the app's lifespan and the class's load hook, each once a process."""
        self._entered = True
        await self._app.enter()
        self._served = await self._app.served(self._model)
        self._outbox = Outbox(sink)

    def submit(self, job: Job) -> None:
        """Call the function, at once or when a slot is free."""
        if len(self._calls) < self._model.concurrency:
            self._begin(job)
        else:
            self._waiting[job.id] = job

    def abort(self, job_id: int) -> None:
        """Cancel a call; the sink hears no more of it at once."""
        self._waiting.pop(job_id, None)
        if job_id in self._calls:
            self._calls[job_id][0].abort()

    def observe(self) -> Observation:
        """Say how it stands; a function may take an hour, so a step is a look at a live loop."""
        self._steps += 1
        return Observation(
            steps=self._steps,
            running=len(self._calls),
            waiting=len(self._waiting),
            kv_used=min(1.0, len(self._calls) / self._model.concurrency),
        )

    def room(self) -> int:
        """Slots that are free."""
        return max(0, self._model.concurrency - len(self._calls) - len(self._waiting))

    def window(self, job_id: int, is_open: bool) -> None:
        """Pause or go on."""
        if job_id in self._calls:
            self._calls[job_id][0].window(is_open=is_open)

    async def close(self) -> None:
        """Cancel what runs, give it time to clean up, and leave the app."""
        self._waiting.clear()
        running = list(self._calls.values())
        for call, _ in running:
            call.abort()
        if running:
            _, late = await asyncio.wait([task for _, task in running], timeout=CLOSE_LIMIT)
            if late:
                log.warning("functions_left_running", model=self.card.name, count=len(late))
            for task in late:
                task.cancel()
        if self._entered:
            self._entered = False
            await self._app.leave()

    def _begin(self, job: Job) -> None:
        assert self._served is not None and self._outbox is not None
        call = Call(job, self._served, self._outbox, self._ended)
        self._calls[job.id] = (call, asyncio.get_running_loop().create_task(call.run()))

    def _ended(self, call: Call) -> None:
        """Free its slot: whoever hears of its end may fill it."""
        del self._calls[call.id]
        while self._waiting and len(self._calls) < self._model.concurrency:
            self._begin(self._waiting.pop(next(iter(self._waiting))))
        if call.aborted:
            self.on_room()
