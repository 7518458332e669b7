"""From the session of a function's call to its client: whole items, within the window.

What an exec may be ahead of its client is `wire.WINDOW` bytes and one item. An item is *taken* when
it is in the client's transport, and it is these outlets that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.outlet import Answering, Buffered, Flusher, nobody_to_tell
from gateway.ports import Forward, Summary
from shared import wire
from shared.errors import InternalError, MillstreamError

SLICE = 2**16
"""Bytes that are written, at most, before they are reported as taken; or one item."""
MOST_UNTAKEN = 2 * wire.WINDOW
"""Bytes that no worker which keeps to its window is ever ahead."""

Convert = Callable[[int, bytes], bytes]
"""An item of a position as the message that the client gets."""


def untold(_taken: int) -> None:
    """Nobody wants to know."""


class ItemsOnly:
    """The part of an outlet that one for functions never needs."""

    __slots__ = ()

    forward: Forward | None = None

    def started(self, worker: str) -> None:
        """A worker took the call."""

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        """Only the outlet of a generation gets tokens."""
        raise TypeError(f"{type(self).__name__} got tokens from {index} on: it is for functions")


class CallOutlet(ItemsOnly, Buffered):
    """The client of one streaming call over gRPC (a `ports.Outlet`).

    Args:
        writer: The call's response stream.
        flusher: Shared by all clients of the gateway.
        fail: Ends the session with an error.
        convert: Makes messages of items; None where they are what the client gets.

    Attributes:
        taken: Told how many items the client has in all; set once the session is open.
    """

    __slots__ = ("_convert", "_sent", "taken")

    def __init__(
        self,
        writer: Answering,
        flusher: Flusher,
        fail: Callable[[MillstreamError], None],
        convert: Convert | None = None,
    ) -> None:
        super().__init__(writer, flusher, fail, writer.finish)
        self._convert = convert
        self._sent = 0
        self.taken: Callable[[int], None] = untold

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        """The next items."""
        if self._ended:
            return
        if self._size > MOST_UNTAKEN:
            self._overflowed(
                InternalError(f"the worker is {self._size} bytes ahead: it ignores its window")
            )
            return
        if self._convert is not None:
            try:
                items = [self._convert(place, item) for place, item in enumerate(items, index)]
            except MillstreamError as error:
                self._overflowed(error)
                return
        self._unsent.extend(items)
        self._size += size_of(items)
        if not self._dirty:
            self._dirty = True
            self._flusher.soon(self)

    def finished(self, summary: Summary) -> None:
        """The last item was given."""
        self._end()

    def flush(self) -> None:
        """Write what waits, or wake `run` where that cannot be done at once."""
        self._dirty = False
        if self._unsent and self._writer.write(self._unsent):
            written, self._unsent = self._unsent, []
            self._wrote(written)
        if self._unsent or self._ended:
            self._go_on()

    async def run(self) -> None:
        """Write until the session ends; the flush does what it can, this what must wait.

        Raises:
            MillstreamError: What the session failed with.
        """
        try:
            while not (self._ended and not self._unsent):
                await self._wake.wait()
                self._wake.clear()
                while self._unsent:
                    batch = self._next()
                    await self._writer.send(batch)
                    self._wrote(batch)
        finally:  # Both hold the session, which holds this.
            self.taken = untold
            self._overflowed = nobody_to_tell
        if self._error is not None:
            raise self._error

    def _next(self) -> list[bytes]:
        """Take the next items from what waits: a slice, at least one."""
        size = count = 0
        for item in self._unsent:
            size += len(item)
            if count and size > SLICE:
                break
            count += 1
        batch = self._unsent[:count]
        del self._unsent[:count]
        return batch

    def _wrote(self, items: Sequence[bytes]) -> None:
        self._size -= size_of(items)
        self._sent += len(items)
        self.taken(self._sent)


def size_of(items: Sequence[bytes]) -> int:
    """Bytes that items take of a window."""
    return sum(map(len, items)) + wire.ITEM_OVERHEAD * len(items)
