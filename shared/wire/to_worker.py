"""What gateways say to one worker, on ms.ctl.<worker>: of its execs, its digests, its life.

`Go`, `Stop` and `Later` answer a claim, `DigestReply` a digest; the others come unasked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Go:
    """The exec is bound: it may speak.

    Attributes:
        exec: Which exec.
        remaining_ms: Until the deadline, counted from the sending of the claim, or None.
    """

    exec: int
    remaining_ms: int | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The claim is refused: ack the message and forget it."""

    exec: int


@dataclass(frozen=True, slots=True)
class Later:
    """The claim is refused for now: give the message back to the queue for `delay_ms`."""

    exec: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the exec and answer the gateway with `Ended`, also if it is unknown; said until then."""

    exec: int
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Resend:
    """Chunks of one choice are missing from `index` on: send what the record holds.

    Attributes:
        exec: Which exec.
        choice: Which of the n choices.
        index: The first token that is missing.
        begun: Whether its `Begun` is missing too.
    """

    exec: int
    choice: int
    index: int
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The client has taken all parts below an index: the exec's window moves on.

    Attributes:
        exec: Which exec.
        index: The first part that it has not.
    """

    exec: int
    index: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The ends of these execs have arrived: forget them."""

    execs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DigestReply:
    """Answer to a `Digest`.

    Attributes:
        gateway: Who answers.
        seq: Of the digest.
        cancel: Execs to end: unknown here, ended or fenced.
        acked: (exec, (frontier per choice)): what is below need not be kept.
        closed: Execs whose end is acknowledged: forget them.
    """

    gateway: str
    seq: int
    cancel: tuple[int, ...]
    acked: tuple[tuple[int, tuple[int, ...]], ...]
    closed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Are you there? Answered at once with `ProbeReply`."""

    gateway: str
    nonce: int
