"""The wire: every frame that crosses NATS, and how it becomes bytes.

A frame is a msgpack array `[version, tag, field, ...]` in the order of the dataclass. Fields are
only ever added at the end, with a default: an older reader ignores what it does not know, a newer
one takes the default for what is missing. So every version from `MIN_VERSION` on is read; a frame
whose meaning changes gets a new tag.

    subject                     who says it   which frames                        module
    ms.req.<model>.<class>      a gateway     Request, within an envelope         request.py
    ms.rep.<gateway>.<request>  an exec       Claim, Begun, Chunk, Parts, Done,   answer.py
                                              Failed, Released
    ms.ctl.<worker>             a gateway     Go, Stop, Later, Cancel, Resend,    to_worker.py
                                              Taken, Closed, DigestReply, Probe
    ms.gw.<gateway>             a worker      Digest, Ended, ProbeReply           to_gateway.py
                                the gateway   Echo
    ms.cancel                   a gateway     CancelAsk; to its inbox CancelAnswer
    ms.hb.<worker>              a worker      Heartbeat                           presence.py
    ms.ann.<worker>             a worker      Announce
    ms.gwhb.<gateway>           a gateway     GatewayBeat

`tags.py` numbers them; `codec.py`, which alone knows msgpack, encodes and decodes: by what
`generic.py` makes of the dataclasses' annotations, and where that is too slow by `fast.py`.
`token.py` has a chunk of one token that is no array (its first byte is its version), and `delta.py`
the client's message in it. `envelope.py` has the headers around a queued request, from which alone
its message can be claimed.
"""

from __future__ import annotations

from shared.wire import envelope
from shared.wire.answer import (
    BOOT_SHIFT,
    ITEM_OVERHEAD,
    LAST,
    MORE,
    PART_MOST,
    WINDOW,
    Begun,
    Chunk,
    Claim,
    Done,
    Failed,
    Parts,
    Released,
    TokenLogprobs,
    pack_ids,
)
from shared.wire.codec import MIN_VERSION, VERSION, decode, encode, encode_chunk
from shared.wire.generic import WireError
from shared.wire.presence import Announce, GatewayBeat, Heartbeat, ModelCard
from shared.wire.request import Message, Request, Sampling, Structured
from shared.wire.tags import TAGS, Frame
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
from shared.wire.token import TOKEN_HEAD, encode_token, is_token, token_head

__all__ = [
    "BOOT_SHIFT",
    "ITEM_OVERHEAD",
    "LAST",
    "MIN_VERSION",
    "MORE",
    "PART_MOST",
    "TAGS",
    "TOKEN_HEAD",
    "VERSION",
    "WINDOW",
    "Announce",
    "Begun",
    "Cancel",
    "CancelAnswer",
    "CancelAsk",
    "Chunk",
    "Claim",
    "Closed",
    "Digest",
    "DigestEntry",
    "DigestReply",
    "Done",
    "Echo",
    "Ended",
    "Failed",
    "Frame",
    "GatewayBeat",
    "Go",
    "Heartbeat",
    "Later",
    "Message",
    "ModelCard",
    "Parts",
    "Probe",
    "ProbeReply",
    "Released",
    "Request",
    "Resend",
    "Sampling",
    "Stop",
    "Structured",
    "Taken",
    "TokenLogprobs",
    "WireError",
    "decode",
    "encode",
    "encode_chunk",
    "encode_token",
    "envelope",
    "is_token",
    "pack_ids",
    "token_head",
]
