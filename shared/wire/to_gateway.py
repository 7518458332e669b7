"""What gateways are told beyond what execs say: by workers, by each other and by themselves.

Workers say `Digest`, `Ended` and `ProbeReply` on ms.gw.<gateway>, where the gateway hears its own
`Echo` too. `CancelAsk` goes to all gateways, on ms.cancel; `CancelAnswer` to the inbox of who asks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DigestEntry:
    """One exec in a digest.

    Attributes:
        request: The request's ULID.
        exec: The exec.
        totals: Per choice, how many tokens were sent.
        ended: Whether it is over: its terminal was sent.
    """

    request: str
    exec: int
    totals: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Digest:
    """What a worker runs for one gateway, on ms.gw.<gateway>, every 500 ms and after a reconnect.

    A long one is a round of several.

    Attributes:
        worker: Who says it.
        seq: Counts up.
        entries: What it runs, or the next part of that.
        first: `seq` of the round's first; 0 where this is it.
        last: Whether the round ends with it: what none of them lists, the worker does not run.
    """

    worker: str
    seq: int
    entries: tuple[DigestEntry, ...]
    first: int = 0
    last: bool = True

    @property
    def began(self) -> int:
        """`seq` of the round's first."""
        return self.first or self.seq


@dataclass(frozen=True, slots=True)
class Ended:
    """Answer to a `Cancel`: the exec is over, its engine job aborted, its record gone."""

    exec: int


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """Answer to a `Probe`."""

    worker: str
    nonce: int


@dataclass(frozen=True, slots=True)
class Echo:
    """A gateway's message to itself through the broker, to tell its own link from a worker's."""

    nonce: int


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """Does anyone run this request? End it."""

    tenant: str
    request_id: str


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """Whether this gateway ran it."""

    gateway: str
    found: bool
