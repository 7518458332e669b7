"""Whether a request can be done in time, from how long the ones before it took: pure.

A request that would only wait until its deadline passes is refused at once: it costs nobody
anything, and its client can go elsewhere. The estimate uses this gateway's own requests alone
(its share of a queue moves as fast as the queue), so it needs no word from anyone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from shared.errors import Overloaded

WINDOW = 2.0
MARGIN = 1.25
LEAST_SAMPLES = 8
_WEIGHT = 0.1


@dataclass(slots=True)
class _Model:
    """What is known of one model's queue.

    Attributes:
        waiting: Requests of each class that no worker took yet.
        bound: When requests were taken, at most `WINDOW` ago.
        service: Seconds from the taking to the end, averaged.
    """

    waiting: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    bound: deque[float] = field(default_factory=deque)
    service: float = 0.0


class Admission:
    """Refuses what cannot be done in time.

    Args:
        refuses: Whether it does; else it only learns.
    """

    def __init__(self, *, refuses: bool = True) -> None:
        self._refuses = refuses
        self._models: dict[str, _Model] = {}

    def check(self, model: str, urgency: int, seconds: float, now: float) -> None:
        """Let a request in, or refuse it.

        Args:
            model: The served name.
            urgency: The class; only this and more urgent ones are waited for.
            seconds: Until its deadline.
            now: The time.

        Raises:
            Overloaded: It would not be done in time; it says when to come again.
        """
        known = self._models.get(model)
        if known is None or not self._refuses:
            return
        ahead = sum(known.waiting[: urgency + 1])
        bound = known.bound
        while bound and now - bound[0] > WINDOW:
            bound.popleft()
        if not ahead or len(bound) < LEAST_SAMPLES:
            return
        wait = ahead * max(now - bound[0], 0.001) / len(bound)
        if (wait + known.service) * MARGIN > seconds:
            raise Overloaded(
                f"{ahead} requests wait for model {model!r}: this one would be taken in about "
                f"{wait:.1f} s, run {known.service:.1f} s, and has {seconds:.1f} s",
                retry_after=min(max(wait, 0.1), 30.0),
            )

    def waits(self, model: str, urgency: int) -> None:
        """A request was queued."""
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = _Model()
        known.waiting[urgency] += 1

    def taken(self, model: str, urgency: int, now: float) -> None:
        """A worker took it."""
        known = self._models[model]
        known.waiting[urgency] -= 1
        known.bound.append(now)

    def left(self, model: str, urgency: int) -> None:
        """It ended before any worker took it."""
        self._models[model].waiting[urgency] -= 1

    def done(self, model: str, seconds: float) -> None:
        """One that was taken is complete."""
        known = self._models[model]
        known.service += (seconds - known.service) * (_WEIGHT if known.service else 1.0)
