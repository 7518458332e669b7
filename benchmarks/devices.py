"""A device in virtual time, under the policy that serves and under a fixed size and window."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.batching.microbatch import TARGET, MicroBatch

NOISE = 0.05


@dataclass(frozen=True, slots=True)
class Device:
    """What a batch takes: `base + slope * size` seconds, up to 5% and more above it."""

    base: float
    slope: float

    def seconds(self, size: int, dice: random.Random) -> float:
        """Of one batch."""
        return (self.base + self.slope * size) * (1 + NOISE * abs(dice.gauss(0, 1)))


@dataclass(slots=True)
class Outcome:
    """What calls saw.

    Attributes:
        seconds: From the arrival to the end of the batch, in the order of the ends.
        sizes: Of the batches.
    """

    seconds: list[float]
    sizes: list[int]

    def p99(self) -> float:
        """Of what came after the first tenth."""
        return p99(self.seconds)


def p99(seconds: Sequence[float]) -> float:
    """The 99th percentile, the first tenth left out."""
    late = sorted(seconds[len(seconds) // 10 :])
    return late[int(0.99 * len(late))]


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """Arrivals of an open loop."""
    dice = random.Random(seed)
    now, arrivals = 0.0, []
    for _ in range(count):
        now += dice.expovariate(rate)
        arrivals.append(now)
    return arrivals


def adaptive(
    device: Device, arrivals: Sequence[float], *, most: int, target: float = TARGET, seed: int = 0
) -> Outcome:
    """Under the policy that serves."""
    dice = random.Random(seed)
    policy = MicroBatch(most, target)
    outcome = Outcome([], [])
    queue: list[float] = []
    batch: list[float] = []
    end: float | None = None
    again: float | None = None
    now, next_ = 0.0, 0
    while next_ < len(arrivals) or queue or end is not None:
        coming = arrivals[next_] if next_ < len(arrivals) else None
        now = max(now, min(at for at in (coming, end, again) if at is not None))
        while next_ < len(arrivals) and arrivals[next_] <= now:
            queue.append(arrivals[next_])
            policy.arrived(arrivals[next_])
            next_ += 1
        if end is not None and end <= now:
            policy.ended(end)
            outcome.seconds.extend(end - at for at in batch)
            end = None
        again = None
        if end is None and queue:
            decision = policy.decide(now, len(queue), queue[0])
            again = decision.again
            if decision.size:
                batch, queue = queue[: decision.size], queue[decision.size :]
                policy.began(now, len(batch))
                outcome.sizes.append(len(batch))
                end = now + device.seconds(len(batch), dice)
    return outcome


def fixed(
    device: Device, arrivals: Sequence[float], *, size: int, window: float, seed: int = 0
) -> Outcome:
    """With the first that waits, up to `size` are collected for at most `window` seconds."""
    dice = random.Random(seed)
    outcome = Outcome([], [])
    free, first = 0.0, 0
    while first < len(arrivals):
        begin = max(arrivals[first], free)
        last = first
        while last < len(arrivals) and last - first < size and arrivals[last] <= begin + window:
            last += 1
        full = last - first == size
        start = max(begin, arrivals[last - 1]) if full else begin + window
        free = start + device.seconds(last - first, dice)
        outcome.seconds.extend(free - at for at in arrivals[first:last])
        outcome.sizes.append(last - first)
        first = last
    return outcome


def sustained(tail: Callable[[float], float], target: float, most: float) -> float:
    """The highest rate, up to `most`, at which the tail latency meets the target."""
    low, high = 0.0, most
    while high - low > 0.004 * most:
        rate = (low + high) / 2
        if tail(rate) <= target:
            low = rate
        else:
            high = rate
    return low
