"""Which number, the tag, stands for which frame.

The tags 1 to 9 are said by an exec on its request's reply subject, 10 to 19 by a gateway to a
worker, 20 to 29 by a worker or gateway of itself, 30 to 39 between gateways, 40 is the request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from shared.wire.answer import Begun, Chunk, Claim, Done, Failed, Parts, Released
from shared.wire.presence import Announce, GatewayBeat, Heartbeat, ModelCard
from shared.wire.request import Message, Request, Sampling, Structured
from shared.wire.to_gateway import (
    CancelAnswer,
    CancelAsk,
    Digest,
    DigestEntry,
    Echo,
    Ended,
    ProbeReply,
)
from shared.wire.to_worker import (
    Cancel,
    Closed,
    DigestReply,
    Go,
    Later,
    Probe,
    Resend,
    Stop,
    Taken,
)

Frame: TypeAlias = (
    Claim | Begun | Chunk | Done | Failed | Released | Parts
    | Go | Stop | Later | Cancel | Resend | DigestReply | Probe | Closed | Taken
    | Digest | ProbeReply | Ended | Echo | Heartbeat | Announce | GatewayBeat
    | CancelAsk | CancelAnswer
    | Request
)  # fmt: skip

TAGS: dict[int, type[Any]] = {
    1: Claim, 2: Begun, 3: Chunk, 4: Done, 5: Failed, 6: Released, 7: Parts,
    10: Go, 11: Stop, 12: Cancel, 13: Resend, 14: DigestReply, 15: Probe,
    16: Later, 17: Closed, 18: Taken,
    20: Digest, 21: ProbeReply, 22: Heartbeat, 23: Announce, 24: GatewayBeat,
    25: Ended, 26: Echo,
    30: CancelAsk, 31: CancelAnswer,
    40: Request,
}  # fmt: skip
"""Never used again for anything else: a frame whose meaning changes gets a new one."""

NESTED: tuple[type[Any], ...] = (Message, Sampling, Structured, ModelCard, DigestEntry)
"""What lies inside frames, as an array in the array, and so has no tag."""
