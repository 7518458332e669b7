"""Every NATS subject of our own, stream and consumer name; nothing else builds one.

Subjects of JetStream's API (`$JS.API...`) are built where something is asked of it.

ms.req.<model>.<class>       requests; classes interactive, standard, batch in stream MS_REQ,
                             resume in stream MS_RESUME
ms.rep.<gateway>.<request>   what an exec says of its request
ms.gw.<gateway>              what a worker says to one gateway: digests, answers to probes
ms.ctl.<worker>              what a gateway says to one worker
ms.hb.<worker>               heartbeats
ms.ann.<worker>              what a worker serves
ms.gwhb.<gateway>            a gateway lives
ms.ask                       workers, announce yourselves
ms.cancel                    gateways, does one of you run this request?
$SYS.ACCOUNT.*.DISCONNECT    the server says that a connection is gone (where imported)
"""

from __future__ import annotations

import hashlib
import re

STREAM = "MS_REQ"
RESUME_STREAM = "MS_RESUME"

CLASSES = ("resume", "interactive", "standard", "batch")
"""Most urgent first; a request's `urgency` is its class's place here."""

STREAM_SUBJECTS = tuple(f"ms.req.*.{name}" for name in CLASSES[1:])
RESUME_SUBJECTS = ("ms.req.*.resume",)

HEARTBEATS = "ms.hb.*"
ANNOUNCEMENTS = "ms.ann.*"
GATEWAY_BEATS = "ms.gwhb.*"
ASK = "ms.ask"
CANCEL = "ms.cancel"
DISCONNECTS = "$SYS.ACCOUNT.*.DISCONNECT"

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,96}")
_MOST = 96


def token(name: str) -> str:
    """A name of any characters as one subject token that is also a legal consumer name.

    Letters, digits, `_` and `-` stay; every other byte of the UTF-8 form becomes `=XX`. A name
    whose token would pass 96 characters keeps its start and ends in a hash, so that two names
    never share a token.
    """
    if _SAFE.fullmatch(name):
        return name
    quoted = "".join(
        chr(byte)
        if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_-")
        else f"={byte:02X}"
        for byte in name.encode()
    )
    if quoted and len(quoted) <= _MOST:
        return quoted
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    return f"{quoted[: _MOST - 26]}=={digest}"


def request(model: str, urgency: int) -> str:
    """Where an attempt is published; urgency 0 is resume."""
    return f"ms.req.{token(model)}.{CLASSES[urgency]}"


def consumer(model: str, urgency: int) -> str:
    """The durable consumer of one model and class."""
    return f"{token(model)}_{CLASSES[urgency]}"


def stream_of(urgency: int) -> str:
    """The stream that holds a class."""
    return RESUME_STREAM if urgency == 0 else STREAM


def reply(gateway: str, request_id: str) -> str:
    """A request's own reply subject."""
    return f"ms.rep.{gateway}.{request_id}"


def replies(gateway: str) -> str:
    """All reply subjects of a gateway."""
    return f"ms.rep.{gateway}.*"


def gateway(name: str) -> str:
    """What workers say to one gateway."""
    return f"ms.gw.{name}"


def control(worker: str) -> str:
    """What gateways say to one worker."""
    return f"ms.ctl.{worker}"


def heartbeat(worker: str) -> str:
    """A worker's heartbeats."""
    return f"ms.hb.{worker}"


def announcement(worker: str) -> str:
    """What a worker serves."""
    return f"ms.ann.{worker}"


def gateway_beat(name: str) -> str:
    """A gateway's beats."""
    return f"ms.gwhb.{name}"
