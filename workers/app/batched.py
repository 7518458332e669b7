"""The engine of a function that takes many calls at once: see `workers.batching.microbatch`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shared.errors import DeadlineExceeded, MillstreamError
from workers.app.batchruns import BatchRun
from workers.app.engine import CLOSE_LIMIT, card
from workers.app.items import Item
from workers.app.outbox import Outbox
from workers.app.running import RunningApp
from workers.app.served import Served
from workers.app.signatures import ModelSpec
from workers.app.threads import Threads
from workers.batching.microbatch import MOST, TARGET, MicroBatch
from workers.engines.base import Engine, Job, Observation, Sink

log = structlog.get_logger(__name__)


class BatchEngine(Engine):
    """Calls a function for many jobs at once, one batch at a time.

    A sync function runs in a thread that is always the same, an async one on the loop. A job that
    was aborted, or whose deadline passed, while it waited never runs.

    Args:
        model: The function.
        app: What it is part of.

    Attributes:
        policy: When a batch starts, and how large.
        batches: So many ran.
    """

    def __init__(self, model: ModelSpec, app: RunningApp) -> None:
        assert model.batch is not None
        self._model = model
        self._app = app
        most = model.batch.max_size or MOST
        self.card = card(model, most)
        self.policy = MicroBatch(most, model.batch.target or TARGET)
        self.batches = 0
        self._entered = False
        self._served: Served | None = None
        self._outbox: Outbox | None = None
        self._threads: Threads | None = None
        self._items: dict[int, Item] = {}
        self._queue: dict[int, Item] = {}
        self._before: set[int] = set()
        self._around: dict[int, asyncio.Task[None]] = {}
        self._run: BatchRun | None = None
        self._task: asyncio.Task[None] | None = None
        self._look_planned = False
        self._again: asyncio.TimerHandle | None = None
        self._opening: asyncio.TimerHandle | None = None
        self._closed = False
        self._steps = 0

    async def start(self, sink: Sink, died: Callable[[MillstreamError], None]) -> None:
        """Run the app's lifespan and the class's load hook, each once a process."""
        self._entered = True
        await self._app.enter()
        self._served = await self._app.served(self._model)
        self._outbox = Outbox(sink)
        self._threads = Threads(1)

    # ---- what the worker calls ------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job; what cannot be read never joins a batch."""
        assert self._served is not None and self._outbox is not None
        item = Item(job, self._served, self._outbox, self._forget)
        self._items[job.id] = item
        try:
            item.decode()
        except Exception as error:  # Also of a user's record.
            item.end(error)
            return
        if self._served.middleware or self._model.reading.dependencies:
            self._before.add(job.id)
            task = asyncio.get_running_loop().create_task(item.run(self._join))
            self._around[job.id] = task
            task.add_done_callback(lambda _: self._around.pop(job.id, None))
        else:
            self._join(item)

    def abort(self, job_id: int) -> None:
        """Drop a job that waits; tell the function where it runs; the sink hears no more of it."""
        item = self._items.get(job_id)
        if item is None:
            return
        waited = self._queue.pop(job_id, None) is not None
        item.abort()
        if self._run is not None and not waited:
            self._run.noticed()
        self.on_room()

    def window(self, job_id: int, is_open: bool) -> None:
        """A reader is behind, or has caught up."""
        item = self._items.get(job_id)
        if item is not None:
            item.window(is_open=is_open)
            if self._run is not None:
                self._run.noticed()

    def observe(self) -> Observation:
        """Say how it stands; a function may take an hour, so a step is a look at a live loop."""
        self._steps += 1
        running = 0 if self._run is None else len(self._run.items)
        return Observation(
            steps=self._steps,
            running=running,
            waiting=self._waiting,
            kv_used=min(1.0, running / self.card.max_batch),
            step_seconds=self.policy.latency(running) if running else 0.0,
        )

    def room(self) -> int:
        """What the next batch will take; nothing while that is far away."""
        return self.policy.room(time.monotonic(), self._waiting)

    def spare(self) -> int:
        """What the next batch will take, where that is no worse than to give it back."""
        return self.policy.spare(time.monotonic(), self._waiting)

    async def close(self) -> None:
        """Cancel what runs, give it time to clean up, and leave the app."""
        self._closed = True
        for timer in (self._again, self._opening):
            if timer is not None:
                timer.cancel()
        self._queue.clear()
        tasks = list(self._around.values())
        if self._task is not None:
            tasks.append(self._task)
        for item in list(self._items.values()):
            item.abort()
        if self._run is not None:
            self._run.noticed()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_LIMIT)
            if late:
                log.warning("functions_left_running", model=self.card.name, count=len(late))
            for task in late:
                task.cancel()
        if self._threads is not None:
            self._threads.close()
        if self._entered:
            self._entered = False
            await self._app.leave()

    # ---- batches --------------------------------------------------------------------------------

    @property
    def _waiting(self) -> int:
        """Jobs here that are in no batch yet, those around whom middleware still runs too."""
        return len(self._queue) + len(self._before)

    def _forget(self, job_id: int) -> None:
        self._items.pop(job_id, None)
        self._before.discard(job_id)

    def _join(self, item: Item) -> None:
        item.ready()
        self._before.discard(item.id)
        self._queue[item.id] = item
        self.policy.arrived(item.arrived)
        if not self._look_planned:  # Calls that came together are looked at together.
            self._look_planned = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Start a batch if one is due."""
        self._look_planned = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._closed or self._run is not None:
            return
        self._drop_late()
        now = time.monotonic()
        oldest = next(iter(self._queue.values()), None)
        if oldest is None:
            return
        fitting = [item for item in self._queue.values() if item.key == oldest.key]
        decision = self.policy.decide(now, len(fitting), oldest.arrived)
        if decision.size:
            self._begin(fitting[: decision.size], now)
        elif decision.again is not None:
            self._again = asyncio.get_running_loop().call_at(
                asyncio.get_running_loop().time() + decision.again - now, self._look
            )

    def _drop_late(self) -> None:
        for item in [item for item in self._queue.values() if item.context.remaining() == 0]:
            del self._queue[item.id]
            item.end(DeadlineExceeded("the deadline passed while it waited for its batch"))

    def _begin(self, items: list[Item], now: float) -> None:
        assert self._served is not None and self._threads is not None
        for item in items:
            del self._queue[item.id]
        self._run = run = BatchRun(items, self._served, self._threads)
        self.batches += 1
        loop = asyncio.get_running_loop()
        self.policy.began(now, len(items))
        opens = self.policy.opens
        if opens is not None:
            self._opening = loop.call_at(loop.time() + max(0.0, opens - now), self._open)
        self._task = loop.create_task(run.run())
        self._task.add_done_callback(lambda _: self._ended(run))

    def _open(self) -> None:
        """The batch will soon be done: ask the queue for the next."""
        self._opening = None
        self.policy.asked(time.monotonic())
        self.on_room()

    def _ended(self, run: BatchRun) -> None:
        self.policy.ended(time.monotonic(), telling=run.telling)
        self._run = self._task = None
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self._look()
        # The next batch starts before the results of this one are encoded.
        asyncio.get_running_loop().call_soon(self._deliver, run)

    def _deliver(self, run: BatchRun) -> None:
        for item, value in run.given:
            item.put(value)
            item.end(None)
        self.on_room()
