"""What a worker tells a gateway of all that runs for it, in slices: pure, time passed in.

A digest of thousands is milliseconds of work in one piece, at both ends, which every other stream
would wait for, and might be more than a message may hold. Said in slices, one a tick, it costs
the same and nobody waits. What it leaves out says as much as what it lists, so each slice names the
first of its round: only who heard all of a round may conclude that an exec is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared import wire
from workers.execution import Execution

SLICE = 64
SLICES = 16
"""A round has so many slices at most; with a tick of 20 ms that is over before the next is due."""


class Round:
    """One digest under way.

    Args:
        execs: What runs for the gateway, or has ended and is not closed.
        least: So many fit into one slice.
    """

    def __init__(self, execs: Sequence[Execution], least: int) -> None:
        self._execs = execs
        self._size = max(least, -(-len(execs) // SLICES))
        self._place = 0
        self._first = 0

    def slice(self, worker: str, seq: int, alive: dict[int, Execution]) -> wire.Digest:
        """The next slice.

        Args:
            worker: Who says it.
            seq: Its number.
            alive: What is not forgotten by now.
        """
        first, begin = self._first, self._place
        self._first = first or seq
        self._place += self._size
        entries = tuple(
            [each.entry for each in self._execs[begin : self._place] if each.exec in alive]
        )
        return wire.Digest(worker, seq, entries, first, self.over)

    @property
    def over(self) -> bool:
        """Whether everything is said."""
        return self._first > 0 and self._place >= len(self._execs)
