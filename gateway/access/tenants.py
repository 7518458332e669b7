"""What a tenant may do, and what is left of it. Pure; time comes in.

Limits hold in each gateway by itself: with three gateways a tenant may have three times as much.
Tokens are reserved by the most a request may generate and settled by what it took, prompt
included, so that many long answers at once cannot run far past the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gateway.access.buckets import Bucket
from shared.errors import Forbidden, Overloaded

Priority = Literal["interactive", "standard", "batch"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "standard", "batch")
"""By urgency, which counts from 1."""

ASSUMED_TOKENS = 256
"""Reserved for a request that names no most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may do; None is no limit.

    Attributes:
        requests_per_second: Rate of new requests.
        request_burst: How many may come at once; by default those of one second, at least 1.
        tokens_per_second: Rate of tokens, prompts and answers together.
        token_burst: How many may be used at once; by default those of ten seconds.
        streams: Requests at a time.
        models: The names it may use; empty is all. A function's name alone is all its versions.
        priorities: The priorities it may ask for.
    """

    requests_per_second: float | None = None
    request_burst: float | None = None
    tokens_per_second: float | None = None
    token_burst: float | None = None
    streams: int | None = None
    models: tuple[str, ...] = ()
    priorities: tuple[Priority, ...] = PRIORITIES

    def allows(self, model: str) -> bool:
        """Whether a served name may be used."""
        return not self.models or model in self.models or model.partition("@")[0] in self.models

    def requests(self, now: float) -> Bucket:
        """A full bucket of requests."""
        rate = _rate(self.requests_per_second)
        return Bucket(rate, self.request_burst or max(1.0, rate), now)

    def tokens(self, now: float) -> Bucket:
        """A full bucket of tokens."""
        rate = _rate(self.tokens_per_second)
        return Bucket(rate, self.token_burst or 10 * rate, now)


def _rate(given: float | None) -> float:
    return math.inf if given is None else given


@dataclass(frozen=True, slots=True)
class Lease:
    """A request that was let in; given back once, when it ends.

    Attributes:
        reserved: Tokens that were set aside for it.
    """

    reserved: float


class Tenant:
    """One tenant at one gateway.

    Args:
        name: Its name.
        limits: What it may do.
        now: Monotonic seconds.

    Attributes:
        open: Requests under way.
    """

    def __init__(self, name: str, limits: Limits, now: float) -> None:
        self.name = name
        self.limits = limits
        self.open = 0
        self._requests = limits.requests(now)
        self._tokens = limits.tokens(now)

    def change(self, limits: Limits, now: float) -> None:
        """Take new limits; what is under way stays counted."""
        if limits == self.limits:
            return
        self.limits = limits
        self._requests = limits.requests(now)
        self._tokens = limits.tokens(now)

    def begin(self, model: str, urgency: int, most_tokens: int | None, now: float) -> Lease:
        """Let a request in and count it.

        Args:
            model: The served name.
            urgency: Its class: 1 interactive, 2 standard, 3 batch.
            most_tokens: It generates at most, over all choices; None where it does not say.
            now: Monotonic seconds.

        Raises:
            Forbidden: The tenant may not use the model or the priority.
            Overloaded: A limit is reached; nothing was counted.
        """
        limits = self.limits
        if not limits.allows(model):
            raise Forbidden(f"tenant {self.name!r} may not use model {model!r}", field="model")
        priority = PRIORITIES[urgency - 1]
        if priority not in limits.priorities:
            raise Forbidden(
                f"tenant {self.name!r} may not ask for priority {priority}", field="priority"
            )
        if limits.streams is not None and self.open >= limits.streams:
            raise self._refused("streams", f"{limits.streams} requests at a time", 1.0)
        reserved = float(ASSUMED_TOKENS if most_tokens is None else most_tokens)
        reserved = min(reserved, self._tokens.capacity)
        if wait := self._tokens.wait(reserved, now):
            what = f"{limits.tokens_per_second:g} tokens a second"
            raise self._refused("tokens_per_second", what, wait)
        if wait := self._requests.wait(1.0, now):
            what = f"{limits.requests_per_second:g} requests a second"
            raise self._refused("requests_per_second", what, wait)
        self._requests.take(1.0, now)
        self._tokens.take(reserved, now)
        self.open += 1
        return Lease(reserved)

    def end(self, lease: Lease, tokens: int, now: float) -> None:
        """A request ended after so many tokens, its prompt included."""
        self.open -= 1
        self._tokens.take(tokens - lease.reserved, now)

    def _refused(self, limit: str, what: str, wait: float) -> Overloaded:
        return Overloaded(
            f"tenant {self.name!r} has reached its limit of {what}",
            field=f"tenants/{self.name}/{limit}",
            retry_after=wait,
        )
