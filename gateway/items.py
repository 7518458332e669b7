"""A function's answer at the gateway: whole items out of parts, and what the client took. Pure.

It differs from a generation's in three ways. Items come in parts, and a continuation begins at an
item's start. The exec may forget, and yields more, only when the client has *taken* an item, not
when it is delivered to the client's buffer: that is the flow-control window. And nothing but the
request is needed to begin anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from gateway.answer import Answer, Ask
from gateway.lane import Lane, PartLane
from gateway.ports import Outlet
from shared import wire

TELL_AFTER = wire.WINDOW // 4
"""Bytes taken after which the exec is told at once; what is less it learns with its digests."""

_NO_PROMPT = wire.Begun(0, 0, b"", 0, "")


class Items(Answer):
    """One function's answer.

    Args:
        outlet: Gets whole items.
        ask: Asks for what is missing.
        count: Counts an event.
    """

    __slots__ = (
        "_frozen", "_give_items", "_items", "_lane", "_open", "_parts", "_taken", "_taken_parts",
        "_untaken", "_untold",
    )  # fmt: skip

    def __init__(self, outlet: Outlet, ask: Ask, count: Callable[[str], None]) -> None:
        self._lane = PartLane()
        super().__init__([self._lane], outlet, ask, count)
        self._give_items = outlet.items
        self.begun = _NO_PROMPT
        self._open: list[bytes] = []
        self._items = 0
        self._parts = 0
        self._frozen = 0
        self._taken = 0
        self._taken_parts = 0
        self._untaken: deque[tuple[int, int]] = deque()
        self._untold = 0

    @property
    def frontiers(self) -> tuple[int, ...]:
        """Parts of the items that the client took: the exec need not keep what is below."""
        return (self._taken_parts,)

    @property
    def reached(self) -> int:
        """Whole items delivered."""
        return self._items

    def continuation(self, request: wire.Request) -> wire.Request:
        """A request that begins anew and gives what comes after the whole items delivered."""
        return replace(
            request,
            after_items=self._items,
            after_parts=self._parts,
            untaken=sum([size for _, size in self._untaken]),
        )

    def on_begun(self, begun: wire.Begun, now: float) -> None:
        """Keep it for the usage: nothing waits for it, and any worker can begin anew."""
        if self.begun is _NO_PROMPT:
            self.begun = replace(begun, fingerprint="")

    def on_chunk(self, chunk: wire.Chunk | wire.Parts, now: float) -> bool:
        """Deliver what is new and next; see `Answer.on_chunk`."""
        if type(chunk) is not wire.Parts:
            self._count("malformed")
            return False
        return super().on_chunk(chunk, now)

    def _deliver(self, lane: Lane, chunk: wire.Chunk | wire.Parts, now: float) -> None:
        assert type(chunk) is wire.Parts
        self._lane.reached = chunk.stop
        first = self._items
        items = []
        for index, part in enumerate(chunk.parts, chunk.index + 1):
            if part[0] == wire.MORE:
                self._open.append(part[1:])
                continue
            item = part[1:]
            if self._open:
                item = b"".join([*self._open, item])
                self._open.clear()
            items.append(item)
            self._parts = index
            self._untaken.append((index, len(item) + wire.ITEM_OVERHEAD))
        if not items:
            return
        if self.first_token is None:
            self.first_token = now
        self._items += len(items)
        self._give_items(first, items, chunk.attempt)

    def freeze(self) -> None:
        """The exec lost the right to speak: what it said of an unfinished item never was."""
        super().freeze()
        self._open.clear()
        self._lane.reached = self._frozen = self._parts

    def took(self, items: int) -> int | None:
        """The client has taken this many items in all.

        Returns:
            The first part that it has not, where that is worth telling the exec now, else None.
        """
        before = self._taken_parts
        while self._taken < items and self._untaken:
            self._taken_parts, size = self._untaken.popleft()
            self._taken += 1
            self._untold += size
        whole = before < self._frozen <= self._taken_parts  # What an exec before this one gave.
        if self._untold < TELL_AFTER and not whole:
            return None
        self._untold = 0
        return self._taken_parts
