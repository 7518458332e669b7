"""One call of a function: its arguments, what runs around it, its items, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from shared.errors import InvalidRequest, MillstreamError
from workers.app import middleware
from workers.app.context import Context
from workers.app.decoding import Dimensions
from workers.app.dependencies import Resolution
from workers.app.failures import told
from workers.app.feed import Feed
from workers.app.middleware import Middleware
from workers.app.outbox import CROWD, Letter, Outbox
from workers.app.served import Served
from workers.engines.base import Job

log = structlog.get_logger(__name__)


class Call:
    """Runs a function once.

    Args:
        job: What to call it with.
        served: The function.
        outbox: Takes what it gives.
        ended: Told once its function has ended, before the worker hears of it.

    Attributes:
        letter: What it gave.
        aborted: Whether nobody wants it any more.
    """

    __slots__ = (
        "_arguments", "_context", "_count", "_dimensions", "_ended", "_feed", "_gate",
        "_in_thread", "_job", "_open", "_outbox", "_served", "_skip", "_task", "aborted", "letter",
    )  # fmt: skip

    def __init__(
        self, job: Job, served: Served, outbox: Outbox, ended: Callable[[Call], None]
    ) -> None:
        self._job = job
        self._served = served
        self._outbox = outbox
        self._ended = ended
        self._context = Context(job, served.model.served_name, served.state)
        self._arguments: dict[str, Any] = {}
        self._dimensions: Dimensions = {}
        self._count = 0
        self._skip = job.after_items
        self._open = True
        self._gate: asyncio.Future[None] | None = None
        self._feed: Feed | None = None
        self._in_thread = False
        self._task: asyncio.Task[Any] | None = None
        self.aborted = False
        self.letter = Letter(self)

    @property
    def id(self) -> int:
        """The job's."""
        return self._job.id

    # ---- what the engine does to it -------------------------------------------------------------

    async def run(self) -> None:
        """Call the function and everything around it; whatever it raises becomes its last word."""
        self._task = asyncio.current_task()
        error: MillstreamError | None = None
        try:
            if not self.aborted:
                await self._perform()
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # A user's function: CancelledError and SystemExit too.
            error = self._told(raised)
        self._ended(self)
        self._outbox.end(self.letter, error)
        if not self._served.model.signature.streaming:
            self._outbox.flush()

    def abort(self) -> None:
        """Tell the function, in whichever way it can hear; it may take its time to end."""
        if self.aborted:
            return
        self.aborted = True
        self._outbox.mute(self.letter)
        self._context.cancelled.set()
        if self._feed is not None:
            self._feed.cancel()
        if self._task is not None and not self._in_thread:
            self._task.cancel()

    def window(self, *, is_open: bool) -> None:
        """The reader is behind, or has caught up."""
        self._open = is_open
        if self._feed is not None:
            self._feed.window(is_open=is_open)
        if is_open and self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def taken(self, count: int, size: int) -> None:
        """So much went to the worker."""
        if self._feed is not None:
            self._feed.taken(count, size)

    def _told(self, raised: BaseException) -> MillstreamError | None:
        names = {"model": self._context.model, "request_id": self._context.request_id}
        if not self.aborted:
            return told(raised, **names)
        if not isinstance(raised, asyncio.CancelledError):
            log.warning("function_failed_after_cancel", **names, exc_info=raised)
        return None

    # ---- the function and what is around it -----------------------------------------------------

    async def _perform(self) -> None:
        served = self._served
        if self._job.call is None:
            raise InvalidRequest(
                f"{served.model.served_name} is a function: call Predict", field="model"
            )
        self._arguments, self._dimensions = served.binding.decode(self._job.call)
        if not served.middleware and not served.model.reading.dependencies:
            await self._body()
            return
        entered: list[Middleware] = []
        resolution = Resolution(self._context, self._off_loop)
        error: BaseException | None = None
        try:
            await middleware.begin(served.middleware, self._context, self._arguments, entered)
            self._arguments |= await resolution.values(served.model.reading.dependencies)
            await self._body()
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # A user's function; its surroundings are told of it.
            error = raised
        error = await resolution.leave(error)
        error = await middleware.finish(entered, self._context, error)
        if error is not None:
            raise error

    async def _body(self) -> None:
        reading = self._served.model.reading
        if self.aborted:
            raise asyncio.CancelledError
        for name in reading.contexts:
            self._arguments[name] = self._context
        if reading.kind == "async":
            self._give(await self._served.target(**self._arguments))
        elif reading.kind == "async_generator":
            await self._stream()
        elif reading.kind == "sync":
            item = await self._off_loop(self._once_in_thread)
            if item is not None:
                self._outbox.add(self.letter, item)
        else:
            self._feed = Feed(self._served.threads.post, partial(self._outbox.add, self.letter))
            self._feed.window(is_open=self._open)
            await self._off_loop(self._stream_in_thread)
        if self.aborted:
            raise asyncio.CancelledError

    async def _stream(self) -> None:
        items = self._served.target(**self._arguments)
        try:
            async for item in items:
                if self.aborted:
                    break
                self._give(item)
                while not self._open or self._outbox.crowded(self.letter):
                    await self._turn()
                if self._count <= self._skip and not self._count % CROWD:
                    await asyncio.sleep(0)
        finally:
            if (close := getattr(items, "aclose", None)) is not None:
                await close()

    async def _turn(self) -> None:
        """Let others have the loop, until the reader has caught up where it is behind."""
        if self._open:
            await asyncio.sleep(0)
            return
        self._gate = asyncio.get_running_loop().create_future()
        await self._gate

    async def _off_loop(self, work: Callable[[], Any]) -> Any:
        """Run it in a thread, which an abort cannot interrupt."""
        self._in_thread = True
        returned, value = await self._served.threads.run(work)
        self._in_thread = False
        if not returned:
            raise value
        return value

    def _once_in_thread(self) -> bytes | None:
        if self._context.cancelled:
            return None
        return self._item(self._served.target(**self._arguments))

    def _stream_in_thread(self) -> None:
        assert self._feed is not None
        items = self._served.target(**self._arguments)
        try:
            for value in items:
                if self._context.cancelled:
                    break
                item = self._item(value)
                if item is not None:
                    self._feed.put(item)
                if self._context.cancelled:
                    break
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    def _give(self, value: Any) -> None:
        item = self._item(value)
        if item is not None:
            self._outbox.add(self.letter, item)

    def _item(self, value: Any) -> bytes | None:
        """Encode the next item; None where another worker has delivered it already."""
        index = self._count
        self._count = index + 1
        if index < self._skip:
            return None
        for hook in self._served.item_hooks:
            value = hook(self._context, value)
        return self._served.binding.encode(value, index, self._dimensions)
