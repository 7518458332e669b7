"""One choice of an answer at the gateway: the frontier, what was delivered, what came too early."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from shared import wire

EARLY_MOST = 1024
MOST_TOKEN = (1 << 32) - 1


class Lane:
    """One choice.

    Attributes:
        frontier: How many tokens the client has.
        delivered: Their ids, four bytes each.
        early: Chunks beyond the frontier, by index; bounded, since what is dropped is resent.
    """

    __slots__ = ("delivered", "early", "frontier")

    def __init__(self) -> None:
        self.frontier = 0
        self.delivered = array("I")
        self.early: dict[int, wire.Chunk] = {}

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
        self.frontier += len(ids)

    def hold(self, chunk: wire.Chunk) -> None:
        """Keep a chunk that came early; of two with one index the longer."""
        known = self.early.get(chunk.index)
        if known is None:
            if len(self.early) < EARLY_MOST:
                self.early[chunk.index] = chunk
        elif len(known.token_ids) < len(chunk.token_ids):
            self.early[chunk.index] = chunk

    def due(self) -> Iterator[wire.Chunk]:
        """Yield what waited and is next now; the caller advances before it asks for more."""
        while self.early:
            first = min(self.early)
            if first > self.frontier:
                return
            chunk = self.early.pop(first)
            if first + len(chunk.token_ids) > self.frontier:
                yield tail(chunk, self.frontier)


def tail(chunk: wire.Chunk, start: int) -> wire.Chunk:
    """The part of a chunk from index `start` on, which lies inside it."""
    skip = start - chunk.index
    if skip == 0:
        return chunk
    ends = chunk.ends or ()
    cut = ends[skip - 1]
    return wire.Chunk(
        chunk.attempt, chunk.exec, start, chunk.token_ids[skip:], chunk.text[cut:],
        tuple(end - cut for end in ends[skip:]), chunk.choice,
        chunk.logprobs[skip:] if chunk.logprobs is not None else None,
    )  # fmt: skip
