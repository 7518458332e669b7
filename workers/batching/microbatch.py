"""When to start the next batch of a function, and how large: a pure policy, with no fixed window.

An idle device starts at once. A busy one takes all that waits when it is free, up to the size at
which the learned latency still meets the target: half of it, since a call that has just missed a
batch waits for that one and runs in the next. Calls stay in the queue, where any worker can take
them, until shortly before the running batch is expected to end.

The device waits for more calls in two cases. While callers are expected back: where most of those
that a batch answers call again at once, a moment's wait has them all in one batch instead of two by
turns. And at the start of what may be a burst, for a share of what a single call takes that nobody
notices.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from workers.batching.latency import Latency

TARGET = 0.1
"""Seconds that a call should take, where nothing is said."""

MOST = 128
"""Items at once, where nothing is said."""

START = 8
"""Items at once that are tried before it is known what size costs."""

GROWTH = 4
"""How much larger than any before a batch may be."""

SLOWEST = 2.0
"""Out of the target's reach, a batch may take this many times what a single call takes."""

PRESSED, PRESS, PRESS_MOST = 3, 1.25, 4.0
"""After so many full batches in a row calls wait elsewhere, and what they wait for is throughput:
each that follows may take this much longer, up to so much in all."""

GATHER, GATHER_LEAST, GATHER_MOST = 0.02, 0.0005, 0.005
"""At the start of a burst: share of a single call, and the seconds that are worth it."""

BACK, BACK_WITHIN = 0.5, 0.25
"""Waiting pays where this share of those answered come back within this share of a batch's fixed
cost; of calls that come by themselves that is half as many, or fewer."""

BATCHES = 8
"""So many of the last ones say how many come back."""

LEAD_FIRST, LEAD_LEAST, LEAD_MOST = 0.004, 0.001, 0.02
"""Seconds before the end of a batch at which the next is asked for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        size: Items to start with; 0 is to wait.
        again: When to ask again if nothing happens before; None is: never.
    """

    size: int
    again: float | None = None


class MicroBatch:
    """The policy of one device. All times are in seconds of one monotonic clock.

    Args:
        most: Items at once, at most.
        target: Seconds that a call should take, its wait in this worker included.

    Attributes:
        latency: What was learned of the function.
        lead: How long before the end of a batch the next is asked for.
    """

    def __init__(self, most: int = MOST, target: float = TARGET) -> None:
        self._most = most
        self._target = target
        self.latency = Latency()
        self.lead = LEAD_FIRST
        self._warm = False
        self._running = 0
        self._began = 0.0
        self._free_since = -math.inf
        self._full = 0
        self._answered = 0
        self._returned = 0
        self._shares: deque[float] = deque(maxlen=BATCHES)
        self._asked: float | None = None
        self._trips: deque[float] = deque(maxlen=8)

    # ---- observations ---------------------------------------------------------------------------

    def arrived(self, now: float, count: int = 1) -> None:
        """Calls came."""
        if now <= self._free_since + self._back_within:
            self._returned += count
        if self._asked is not None:
            self._trips.append(now - self._asked)
            self._asked = None
            quick = sorted(self._trips)[len(self._trips) // 4]  # The slow ones met an empty queue.
            self.lead = min(LEAD_MOST, max(LEAD_LEAST, 2 * quick))

    def asked(self, now: float) -> None:
        """The queue was asked for the next batch."""
        self._asked = now

    def began(self, now: float, size: int) -> None:
        """A batch starts."""
        self._full = self._full + 1 if size >= self.limit else 0
        self._running, self._began = size, now
        self._asked = None

    def ended(self, now: float, *, telling: bool = True) -> None:
        """It is done.

        Args:
            now: When.
            telling: Whether its time says something: not where it failed or was cut short.
        """
        size, self._running, self._free_since = self._running, 0, now
        if self._answered:
            self._shares.append(self._returned / self._answered)
        self._answered, self._returned = size, 0
        if telling and self._warm:
            self.latency.learn(size, now - self._began)
        self._warm = self._warm or telling  # The first one is slow: everything is made ready.

    # ---- decisions ------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Items of the next batch, at most."""
        held = float(max(START, GROWTH * self.latency.tried))
        if self.latency.sure:
            seconds = max(self._target / 2, SLOWEST * self.latency(1))
            seconds *= min(PRESS_MOST, PRESS ** max(0, self._full - PRESSED))
            held = min(held, self.latency.largest(seconds))
        return int(max(1, min(held, self._most)))

    def decide(self, now: float, waiting: int, oldest: float) -> Decision:
        """Whether to start.

        Args:
            now: The time.
            waiting: Calls that are here.
            oldest: When the first of them came.
        """
        if self._running or not waiting:
            return Decision(0)
        limit = self.limit
        if waiting >= limit or not self.latency.known:
            return Decision(min(waiting, limit))
        until = max(self._gathered(waiting, oldest), self._all_back(waiting, oldest))
        return Decision(0, until) if until > now else Decision(waiting)

    def room(self, now: float, waiting: int) -> int:
        """Calls that the queue may send: what the next batch takes, once it is near.

        Args:
            now: The time.
            waiting: Calls that are here.
        """
        opens = self.opens
        if opens is None or now < opens:
            return 0
        return max(0, self.limit - waiting)

    def spare(self, now: float, waiting: int) -> int:
        """Calls that are better taken than given back, where the queue sends them unasked now."""
        if self._running and self.remaining(now) > LEAD_MOST:
            return 0
        return max(0, self.limit - waiting)

    @property
    def opens(self) -> float | None:
        """When the next batch should be asked for; None is: when the running one has ended."""
        if not self._running:
            return -math.inf
        if not self.latency.known:
            return None
        return self._began + self.latency(self._running) - self.lead

    def remaining(self, now: float) -> float:
        """Seconds until the device is free, as far as is known."""
        if not self._running:
            return 0.0
        if not self.latency.known:
            return math.inf
        return max(0.0, self._began + self.latency(self._running) - now)

    # ---- waiting --------------------------------------------------------------------------------

    def _gathered(self, waiting: int, oldest: float) -> float:
        """Until when a burst may come together."""
        gather = min(GATHER * self.latency(waiting), GATHER_MOST)
        return oldest + gather if gather >= GATHER_LEAST else -math.inf

    def _all_back(self, waiting: int, oldest: float) -> float:
        """Until when those just answered are expected back."""
        if len(self._shares) < BATCHES // 2:
            return -math.inf
        share = median(self._shares)
        if share < BACK or self._returned >= math.floor(share * self._answered + 0.5):
            return -math.inf
        latest = oldest + self._target - 2 * self.latency(waiting)
        return min(self._free_since + self._back_within, latest)

    @property
    def _back_within(self) -> float:
        return BACK_WITHIN * self.latency.base
