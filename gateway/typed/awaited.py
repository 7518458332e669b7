"""A function's items for who asks for them, whatever protocol they go out by."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from gateway.ports import Summary
from gateway.typed.outlet import MOST_UNTAKEN, SLICE, ItemsOnly, size_of, untold
from shared.errors import InternalError, MillstreamError


class Awaited(ItemsOnly):
    """Keeps a call's items until somebody takes them, in slices or the only one (a `ports.Outlet`).

    Attributes:
        taken: Told how many items were taken in all; set once the session is open.
        summary: What the call's end said; None before, and where it failed.
    """

    def __init__(self) -> None:
        self.taken: Callable[[int], None] = untold
        self.summary: Summary | None = None
        self._items: deque[bytes] = deque()
        self._size = 0
        self._count = 0
        self._given = 0
        self._poked = False
        self._ended = False
        self._error: MillstreamError | None = None
        self._wake = asyncio.Event()

    async def some(self) -> list[bytes] | None:
        """The next items, a slice at most; they are taken when the next are asked for.

        Returns:
            None after the last; an empty list after a `poke`, where there is none yet.

        Raises:
            MillstreamError: What the session failed with, after the items before.
        """
        if self._given:
            self._count += self._given
            self._given = 0
            self.taken(self._count)
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            if self._poked:
                self._poked = False
                return []
            self._wake.clear()
            await self._wake.wait()
        batch = [self._pop()]
        size = len(batch[0])
        while self._items and size + len(self._items[0]) <= SLICE:
            batch.append(self._pop())
            size += len(batch[-1])
        self._given = len(batch)
        return batch

    def poke(self) -> None:
        """Wake who waits in `some`."""
        self._poked = True
        self._wake.set()

    async def only(self) -> bytes:
        """The one item of a function that does not stream, once the call has ended.

        Raises:
            MillstreamError: What the session failed with.
            InternalError: The worker gave none, or several.
        """
        while not self._ended:
            self._wake.clear()
            await self._wake.wait()
        if self._error is not None:
            raise self._error
        if len(self._items) != 1:
            raise InternalError(f"the worker gave {len(self._items)} results: want one")
        return self._items[0]

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        """The next items."""
        if self._ended:
            return
        if self._size > MOST_UNTAKEN:
            self.failed(
                InternalError(f"the worker is {self._size} bytes ahead: it ignores its window")
            )
            return
        self._items.extend(items)
        self._size += size_of(items)
        self._wake.set()

    def finished(self, summary: Summary) -> None:
        """The last item was given."""
        self.summary = summary
        self._end()

    def failed(self, error: MillstreamError) -> None:
        """The call failed."""
        self._error = error
        self._end()

    def _pop(self) -> bytes:
        item = self._items.popleft()
        self._size -= size_of((item,))
        return item

    def abandon(self) -> None:
        """The client is served or gone: `some` returns None."""
        self.taken = untold
        self._items.clear()
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._wake.set()
