"""What a function's exec says: its items in parts, kept until the client has taken them. Pure.

The counterpart of `workers.publisher` for functions. The record is counted in bytes, and bounded by
the flow-control window: see `held`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from shared import wire

_FRAME_MOST = 2 * wire.PART_MOST
_LAST = bytes([wire.LAST])
_MORE = bytes([wire.MORE])


class PartsPublisher:
    """The record of one exec and the frames made of it.

    Args:
        attempt: The attempt it runs.
        exec_: Its number.
        start: The index of the first part it will give.
        ahead: Bytes of what was given before it that the client has not taken. They count until
            it has taken all of them, or every failover would cost its gateway another window.

    Attributes:
        held: Bytes that the client has not taken: of the record, and ahead of it.
        items: Items added.
    """

    __slots__ = ("_ahead", "_attempt", "_exec", "_first", "_parts", "_sent", "held", "items")

    choices = 1
    kept = 0
    """It never counts against the worker's records: the window bounds it."""

    def __init__(self, attempt: int, exec_: int, start: int, ahead: int = 0) -> None:
        self._attempt = attempt
        self._exec = exec_
        self._first = self._sent = start
        self._parts: deque[bytes] = deque()
        self._ahead = self.held = ahead
        self.items = 0

    @property
    def totals(self) -> tuple[int, ...]:
        """The index after the last part sent."""
        return (self._sent,)

    def add(self, items: Sequence[bytes]) -> None:
        """Take the next items."""
        self.items += len(items)
        for item in items:
            if len(item) < wire.PART_MOST:
                self._parts.append(_LAST + item)
            else:
                self._parts.extend(_cut(item))
            self.held += len(item) + wire.ITEM_OVERHEAD

    def flush(self) -> list[bytes]:
        """Encode what was added and not yet sent."""
        frames = self._encode(self._sent)
        self._sent = self._first + len(self._parts)
        return frames

    def resend(self, choice: int, index: int) -> list[bytes]:
        """Encode again what was sent from `index` on, as far as it is kept."""
        return [] if choice else self._encode(max(index, self._first), self._sent)

    def acknowledge(self, frontiers: Sequence[int]) -> int:
        """Forget what the client has taken; 0, since none of it counts as `kept`."""
        if frontiers and frontiers[0] >= self._first:
            self.held -= self._ahead
            self._ahead = 0
        known = min(frontiers[0], self._sent) if frontiers else 0
        while self._first < known:
            part = self._parts.popleft()
            self._first += 1
            self.held -= len(part) - 1 + (wire.ITEM_OVERHEAD if part[0] == wire.LAST else 0)
        return 0

    def _encode(self, start: int, stop: int | None = None) -> list[bytes]:
        """Frames of the parts [start, stop), each of bounded size."""
        frames: list[bytes] = []
        parts: list[bytes] = []
        size = 0
        first = start
        last = self._first + len(self._parts) if stop is None else stop
        for index in range(start, last):
            part = self._parts[index - self._first]
            if parts and size + len(part) > _FRAME_MOST:
                frames.append(self._frame(first, parts))
                parts, size, first = [], 0, index
            parts.append(part)
            size += len(part)
        if parts:
            frames.append(self._frame(first, parts))
        return frames

    def _frame(self, index: int, parts: list[bytes]) -> bytes:
        return wire.encode(wire.Parts(self._attempt, self._exec, index, tuple(parts)))


def _cut(item: bytes) -> Iterator[bytes]:
    """A long item in parts."""
    size = wire.PART_MOST - 1
    for start in range(0, len(item), size):
        mark = _MORE if start + size < len(item) else _LAST
        yield mark + item[start : start + size]
