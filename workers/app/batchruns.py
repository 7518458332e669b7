"""One batch: the function's call or generator, what each item gets, and failures item by item."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from shared.errors import EngineError
from workers.app.failures import ContractError
from workers.app.items import Item
from workers.app.served import Served
from workers.app.stacking import rows, stacked
from workers.app.steps import Step, Steps
from workers.app.threads import Threads

log = structlog.get_logger(__name__)

PATIENCE = 5.0
"""Seconds for which one slow reader may hold up the stream of a batch."""

Given = list[tuple[Item, Any]]


class BatchRun:
    """Runs a function once for several items; after a failure, perhaps again for fewer.

    Args:
        items: The calls.
        served: The function.
        threads: The thread of a sync function.

    Attributes:
        items: The calls.
        given: What a function that returns gave each item, or the exception in its place.
        telling: Whether the time it took says something: not where it failed or was cut short.
    """

    def __init__(self, items: Sequence[Item], served: Served, threads: Threads) -> None:
        self.items = items
        self._now: Sequence[Item] = items
        self._served = served
        self._threads = threads
        self.given: Given = []
        self.telling = True
        self._steps: Steps | None = None
        self._gate: asyncio.Future[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Call it."""
        self._task = asyncio.current_task()
        await self._run(self.items)
        self._impatient(None)

    def noticed(self) -> None:
        """An item was aborted, or its window has changed."""
        self._impatient(None)
        if not any(item.live for item in self._now):
            self._cut()
            return
        full = any(item.full for item in self._now)
        if full:
            loop = asyncio.get_running_loop()
            self._impatient(loop.call_later(PATIENCE, self._drop_slow))
        if self._steps is not None:
            self._steps.pause(full)
        if not full and self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def _cut(self) -> None:
        """Nobody wants anything of it any more; a sync function that returns goes on to its end."""
        if self._steps is not None:
            self._steps.cancel()
            self.telling = False
        if self._task is not None and self._served.model.reading.is_async and self.telling:
            self._task.cancel()
            self.telling = False

    # ---- failures -------------------------------------------------------------------------------

    async def _run(self, items: Sequence[Item]) -> None:
        """Call it for these; where that fails, for each half where it may run again."""
        self._now = items
        try:
            await self._call(items)
            return
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # A user's function: CancelledError and SystemExit too.
            raised = error
        self.telling = False
        live = [item for item in items if item.live]
        again = self._served.model.idempotent and not isinstance(raised, ContractError)
        if len(items) == 1 or not live or not again:
            self._fail(live, raised, alone=len(items) == 1)
            return
        for item in live:
            item.restart()
        middle = len(live) // 2
        for half in (live[:middle], live[middle:]):
            if half := [item for item in half if item.live]:
                await self._run(half)

    def _fail(self, live: Sequence[Item], raised: BaseException, *, alone: bool) -> None:
        if alone or isinstance(raised, ContractError):
            self.given.extend((item, raised) for item in live)
            return
        if live:
            log.error(
                "batch_failed", model=self._served.model.served_name, exc_info=raised,
                request_ids=[item.context.request_id for item in live],
            )  # fmt: skip
        for item in live:
            error = EngineError(
                f"the function failed for the batch: {type(raised).__name__}; "
                f"see the worker's log for request {item.context.request_id}"
            )
            self.given.append((item, error))

    # ---- the function ---------------------------------------------------------------------------

    async def _call(self, items: Sequence[Item]) -> None:
        kind = self._served.model.reading.kind
        if kind == "sync":
            given = await self._off_loop(lambda: self._rows(self._target(items), items))
        elif kind == "async":
            given = self._rows(await self._target(items), items)
        elif kind == "generator":
            self._steps = Steps(self._threads.post, self._take)
            await self._off_loop(lambda: self._stream_in_thread(items))
            self._steps = None
            given = []
        else:
            await self._stream(items)
            given = []
        self.given.extend(zip(items, given, strict=False))
        if not given:
            for item in items:
                item.end(None)

    def _target(self, items: Sequence[Item]) -> Any:
        model = self._served.model
        stacks = {} if model.batch is None else model.batch.stacked
        return self._served.target(**stacked(items, stacks, model.reading.contexts))

    def _rows(self, result: Any, items: Sequence[Item]) -> Step:
        return rows(result, len(items), self._served.model.reading.output)

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        returned, value = await self._threads.run(work)
        if not returned:
            raise value
        return value

    def _stream_in_thread(self, items: Sequence[Item]) -> None:
        assert self._steps is not None
        steps = self._target(items)
        try:
            for step in steps:
                if not self._steps.put(self._rows(step, items)):
                    break
        finally:
            if (close := getattr(steps, "close", None)) is not None:
                close()

    async def _stream(self, items: Sequence[Item]) -> None:
        steps = self._target(items)
        try:
            async for step in steps:
                self._take(self._rows(step, items))
                if not any(item.live for item in items):
                    break
                if any(item.full for item in items):
                    self._gate = asyncio.get_running_loop().create_future()
                    await self._gate
                await asyncio.sleep(0)
        finally:
            if (close := getattr(steps, "aclose", None)) is not None:
                await close()

    def _take(self, step: Step) -> None:
        """Give each item what it gets of a step."""
        items = self._now
        for item, value in zip(items, step, strict=True):
            item.put(value)
        if not any(item.live for item in items):
            if self._steps is not None:
                self._steps.cancel()
        elif any(item.full for item in items):
            self.noticed()

    # ---- slow readers ---------------------------------------------------------------------------

    def _impatient(self, timer: asyncio.TimerHandle | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = timer

    def _drop_slow(self) -> None:
        for item in self._now:
            if item.full:
                item.fail_slow()
        self.noticed()
