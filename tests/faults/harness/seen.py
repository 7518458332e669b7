"""What clients saw, and what must be true of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.errors import MillstreamError
from workers.engines.sim import chain_broken


@dataclass(slots=True)
class Seen:
    """What one client saw.

    Attributes:
        tokens: In the order of their arrival.
        times: Of their arrival, monotonic.
        worker: The name of who began it.
    """

    prompt: str
    wanted: int
    opened: float
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: MillstreamError | None = None
    attempts: int = 0
    tries: int = 0
    worker: str = ""

    @property
    def done(self) -> bool:
        return self.attempts > 0

    @property
    def first(self) -> float:
        """Seconds until its first token."""
        return self.times[0] - self.opened

    @property
    def worst_gap(self) -> float:
        """Seconds between two tokens, at most."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return max((after - before for before, after in pairs), default=0.0)

    def broken(self) -> str:
        """What is wrong with a finished answer in chain mode, or ""."""
        place = chain_broken(tuple(self.prompt.encode()), self.tokens)
        if place is not None:
            return f"the chain breaks at {place}"
        if self.error is None and len(self.tokens) != self.wanted:
            return f"{len(self.tokens)} of {self.wanted} tokens"
        return ""


def verify(seen: Sequence[Seen], *, failures: int = 0) -> None:
    """Every answer ended once, complete and unbroken; at most so many failed."""
    failed = [one for one in seen if one.error is not None]
    assert len(failed) <= failures, [one.error for one in failed]
    broken = [(one.prompt, why) for one in seen if (why := one.broken())]
    assert not broken, broken
