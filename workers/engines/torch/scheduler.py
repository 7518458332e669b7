"""Who runs in the next step: slots of the KV cache, prompts in chunks, the batch kept compact.

A lane is one choice of one job and sits in the slot of its index in `lanes`. The lanes that decode
come first, then at most one whose prompt is unfinished: so a step's batch is always the slots from
0 on, and no cache row is gathered. A lane that leaves is replaced by the last one, whose cache row
the caller copies. No torch, no I/O, no clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Self, TypeVar


@dataclass(slots=True, eq=False)
class Lane:
    """One choice of one job, as far as scheduling goes.

    Attributes:
        job: The job's id.
        size: Tokens to compute before the first new one: prompt and delivered answer.
        urgency: 0 goes first; equal ones in order of arrival.
        cached: Tokens in the KV cache.
        forks: Choices that begin from this lane's cache once `size` tokens are in it.
    """

    job: int
    size: int
    urgency: int = 2
    cached: int = 0
    forks: list[Self] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Tokens to compute before the first new one."""
        return self.size - self.cached


L = TypeVar("L", bound=Lane)


class Copy(NamedTuple):
    """Copy the first `length` positions of cache row `source` to row `target`."""

    source: int
    target: int
    length: int


class Prefill(NamedTuple):
    """Compute the next tokens of the lanes from slot `first` on: `counts` each, in one batch."""

    first: int
    counts: list[int]


class Scheduler(Generic[L]):
    """Seats lanes and plans steps.

    Args:
        slots: Lanes that run at once.
        chunk: Prompt tokens computed in one step at most, padding included.

    Attributes:
        lanes: The lane in each slot; the first `decoding` of them decode.
        version: Changes whenever the lanes or their order do.
    """

    def __init__(self, slots: int, chunk: int) -> None:
        self.slots = slots
        self.chunk = chunk
        self.lanes: list[L] = []
        self.decoding = 0
        self.version = 0
        self._waiting: list[tuple[int, int, L]] = []
        self._arrivals = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.lanes and not self._waiting

    @property
    def waiting(self) -> int:
        """Lanes without a slot."""
        return len(self._waiting)

    def add(self, lane: L) -> None:
        """Queue a lane; it and its forks must fit into the slots."""
        heapq.heappush(self._waiting, (lane.urgency, self._arrivals, lane))
        self._arrivals += 1

    def plan(self) -> Prefill | None:
        """Seat waiting lanes and say whose prompt goes on in this step; the rest decode.

        Either one lane gets a chunk, or several finish together; so at most one is unfinished
        after the step. A lane that does not fit is not overtaken.
        """
        group = self.lanes[self.decoding :]
        width = max((lane.missing for lane in group), default=0)
        free = self.slots - len(self.lanes) - sum(len(lane.forks) for lane in group)
        while self._waiting:
            lane = self._waiting[0][2]
            wider = max(width, lane.missing)
            seats = 1 + len(lane.forks)
            if seats > free or (group and wider * (len(group) + 1) > self.chunk):
                break
            heapq.heappop(self._waiting)
            self.lanes.append(lane)
            self.version += 1
            group.append(lane)
            width, free = wider, free - seats
        if not group:
            return None
        return Prefill(self.decoding, [min(lane.missing, self.chunk) for lane in group])

    def advance(self, prefill: Prefill | None) -> list[Copy]:
        """Count a step's tokens as cached, and seat the forks of lanes that are complete.

        Returns:
            The rows to copy for the forks, before the next step.
        """
        for lane in self.lanes[: self.decoding]:
            lane.cached += 1
        if prefill is None:
            return []
        copies = []
        for slot, count in enumerate(prefill.counts, prefill.first):
            lane = self.lanes[slot]
            lane.cached += count
            if lane.missing:
                return []
            for fork in lane.forks:
                fork.cached = lane.cached
                copies.append(Copy(slot, len(self.lanes), lane.cached))
                self.lanes.append(fork)
            lane.forks = []
        self.decoding = len(self.lanes)
        self.version += 1
        return copies

    def discard(self, jobs: Collection[int]) -> list[Copy]:
        """Take out all lanes of some jobs, waiting ones too; returns as `leave` does."""
        if any(lane.job in jobs for _, _, lane in self._waiting):
            self._waiting = [entry for entry in self._waiting if entry[2].job not in jobs]
            heapq.heapify(self._waiting)
        return self.leave({slot for slot, lane in enumerate(self.lanes) if lane.job in jobs})

    def leave(self, leaving: Collection[int]) -> list[Copy]:
        """Free some slots and close the gaps.

        Returns:
            The rows to copy, in this order, before the next step.
        """
        if not leaving:
            return []
        self.version += 1
        copies: list[Copy] = []
        stay = [slot for slot in range(self.decoding) if slot not in leaving]
        seated = self.lanes[: len(stay)]
        for gap in range(len(stay)):
            if gap in leaving:
                seated[gap] = self._move(stay.pop(), gap, copies)
        for slot in range(self.decoding, len(self.lanes)):
            if slot not in leaving:
                seated.append(self._move(slot, len(seated), copies))
        self.decoding -= sum(1 for slot in leaving if slot < self.decoding)
        self.lanes = seated
        return copies

    def _move(self, source: int, target: int, copies: list[Copy]) -> L:
        lane = self.lanes[source]
        if source != target:
            copies.append(Copy(source, target, lane.cached))
        return lane
