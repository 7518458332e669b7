"""One call of a batched function: its arguments, what runs around it, its items, its end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from shared.errors import InvalidRequest, Overloaded
from workers.app import middleware
from workers.app.context import Context
from workers.app.decoding import Dimensions
from workers.app.dependencies import Resolution
from workers.app.failures import told
from workers.app.markers import END
from workers.app.middleware import Middleware
from workers.app.outbox import Letter, Outbox
from workers.app.served import Served
from workers.engines.base import Job

log = structlog.get_logger(__name__)

HOLD, HOLD_BYTES = 1024, 1 << 20
"""Items kept for a reader that is behind, and their bytes, before the whole batch has to wait."""

Key = tuple[tuple[str, tuple[int, ...]], ...]


class Item:
    """A call that is to be, or is, in a batch.

    Args:
        job: What to call it with.
        served: The function.
        outbox: Takes what it gives.
        done: Called with its id when the engine may forget it.

    Attributes:
        context: The call, as the function sees it.
        arguments: By name.
        arrived: When it was ready to be in a batch.
        key: What must be the same in a batch: number types and shapes of what is stacked.
        live: Whether anybody still wants something of it.
    """

    def __init__(
        self, job: Job, served: Served, outbox: Outbox, done: Callable[[int], None]
    ) -> None:
        self._job = job
        self._done = done
        self._served = served
        self._outbox = outbox
        self.context = Context(job, served.model.served_name, served.state)
        self.arguments: dict[str, Any] = {}
        self._dimensions: Dimensions = {}
        self.arrived = 0.0
        self.key: Key = ()
        self.live = True
        self._letter = Letter(self)
        self._count = 0
        self._skip = job.after_items
        self._open = True
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._last: tuple[BaseException | None] | None = None
        self._turn: asyncio.Future[BaseException | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_thread = False

    @property
    def id(self) -> int:
        """The job's."""
        return self._job.id

    @property
    def full(self) -> bool:
        """Whether its reader is so far behind that the batch has to wait."""
        return self.live and (len(self._held) >= HOLD or self._held_bytes >= HOLD_BYTES)

    def taken(self, count: int, size: int) -> None:
        """So much went to the worker: what bounds a batch is what is held back."""

    # ---- before its batch -----------------------------------------------------------------------

    def decode(self) -> None:
        """Read its arguments.

        Raises:
            InvalidRequest: They are malformed, or not as the annotations want them.
        """
        if self._job.call is None:
            raise InvalidRequest(f"{self.context.model} is a function: call Predict", field="model")
        self.arguments, self._dimensions = self._served.binding.decode(self._job.call)

    def ready(self) -> None:
        """It may be in a batch from now on."""
        self.arrived = time.monotonic()
        batch = self._served.model.batch
        if batch is not None and batch.stacked:
            arrays = (self.arguments[name] for name in batch.stacked)
            self.key = tuple((str(one.dtype), tuple(one.shape)) for one in arrays)

    async def run(self, join: Callable[[Item], None]) -> None:
        """Run middleware and dependencies around it; in between it is in a batch."""
        self._task = asyncio.current_task()
        entered: list[Middleware] = []
        resolution = Resolution(self.context, self._off_loop)
        error: BaseException | None = None
        try:
            chain = self._served.middleware
            await middleware.begin(chain, self.context, self.arguments, entered)
            self.arguments |= await resolution.values(self._served.model.reading.dependencies)
            if self.context.cancelled:
                raise asyncio.CancelledError
            self._turn = asyncio.get_running_loop().create_future()
            join(self)
            error = await self._turn
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # A user's function; its surroundings are told of it.
            error = raised
        error = await resolution.leave(error)
        error = await middleware.finish(entered, self.context, error)
        self._say(error)

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        self._in_thread = True
        returned, value = await self._served.threads.run(work)
        self._in_thread = False
        if not returned:
            raise value
        return value

    # ---- what the batch gives it ----------------------------------------------------------------

    def put(self, value: Any) -> None:
        """Take what the function gave in its place: an item, an exception, None or END."""
        if not self.live:
            return
        if value is END:
            self.end(None)
        elif isinstance(value, BaseException):
            self.end(value)
        elif value is not None or not self._served.model.reading.streaming:
            try:
                self._give(value)
            except (Exception, asyncio.CancelledError) as error:  # A user's hook, say.
                self.end(error)

    def restart(self) -> None:
        """The function runs again for it: what it gave already is not given twice."""
        self._skip, self._count = max(self._skip, self._count), 0

    def end(self, error: BaseException | None) -> None:
        """It is done."""
        if not self.live:
            return
        self.live = False
        if error is not None:
            self.context.cancelled.set()  # For a generator that goes on for the others.
        if error is not None or not self._held:
            self._finish(error)
        else:
            self._last = (error,)

    def fail_slow(self) -> None:
        """Its reader held the batch up for too long."""
        self._held.clear()
        self.end(Overloaded("the answer was read too slowly for the batch that it was in"))

    def _give(self, value: Any) -> None:
        index = self._count
        self._count = index + 1
        if index < self._skip:
            return
        for hook in self._served.item_hooks:
            value = hook(self.context, value)
        item = self._served.binding.encode(value, index, self._dimensions)
        if self._open and not self._held:
            self._outbox.add(self._letter, item)
        else:
            self._held.append(item)
            self._held_bytes += len(item)

    def _finish(self, error: BaseException | None) -> None:
        if self._turn is None:
            self._say(error)
        elif not self._turn.done():
            self._turn.set_result(error)

    def _say(self, error: BaseException | None) -> None:
        self.live = False
        self._done(self.id)
        if error is None or self._letter.mute:
            self._outbox.end(self._letter, None)
            return
        names = {"model": self.context.model, "request_id": self.context.request_id}
        self._outbox.end(self._letter, told(error, **names))

    # ---- what the worker does to it -------------------------------------------------------------

    def abort(self) -> None:
        """Nobody wants it any more."""
        self.live = False
        self._outbox.mute(self._letter)
        self._held.clear()
        self.context.cancelled.set()
        self._done(self.id)
        if self._task is not None and not self._in_thread:
            self._task.cancel()

    def window(self, *, is_open: bool) -> None:
        """Its reader is behind, or has caught up."""
        self._open = is_open
        if not is_open:
            return
        for item in self._held:
            self._outbox.add(self._letter, item)
        self._held.clear()
        self._held_bytes = 0
        if self._last is not None:
            (error,), self._last = self._last, None
            self._finish(error)
