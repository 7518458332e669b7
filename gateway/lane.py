"""One choice of an answer at the gateway: the frontier, what was delivered, what came too early."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from shared import wire

EARLY_MOST = 1024


class Lane:
    """One choice.

    Attributes:
        delivered: The ids of the tokens that the client has, four bytes each.
        early: Chunks beyond the frontier, by index; bounded, since what is dropped is resent.
    """

    __slots__ = ("delivered", "early")

    def __init__(self) -> None:
        self.delivered = array("I")
        self.early: dict[int, wire.Chunk | wire.Parts] = {}

    @property
    def frontier(self) -> int:
        """How many tokens the client has."""
        return len(self.delivered)

    def advance(self, chunk: wire.Chunk) -> None:
        """Note as delivered a chunk that begins at the frontier.

        Raises:
            OverflowError: A token id is none; nothing was noted.
        """
        ids = chunk.token_ids
        if len(ids) == 1:
            self.delivered.append(ids[0])
        else:
            self.delivered.extend(array("I", ids))

    def hold(self, chunk: wire.Chunk | wire.Parts) -> None:
        """Keep a chunk that came early; of two with one index the longer."""
        known = self.early.get(chunk.index)
        if known is None:
            if len(self.early) < EARLY_MOST:
                self.early[chunk.index] = chunk
        elif known.stop < chunk.stop:
            self.early[chunk.index] = chunk

    def due(self) -> Iterator[wire.Chunk | wire.Parts]:
        """Yield what waited and is next now; the caller advances before it asks for more."""
        while self.early:
            first = min(self.early)
            if first > self.frontier:
                return
            chunk = self.early.pop(first)
            if chunk.stop > self.frontier:
                yield chunk.after(self.frontier)


class PartLane(Lane):
    """The answer of a function, whose parts need not be kept: `delivered` stays empty.

    Attributes:
        reached: How many of them are delivered.
    """

    __slots__ = ("reached",)

    def __init__(self) -> None:
        super().__init__()
        self.reached = 0

    @property
    def frontier(self) -> int:
        """How many parts are delivered."""
        return self.reached
