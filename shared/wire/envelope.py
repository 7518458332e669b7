"""What stands around a queued request: the headers of its message on ms.req.<model>.<class>.

    Nats-Msg-Id   <request>.<attempt>; JetStream stores what is published twice under it once
    Nats-TTL      seconds after which JetStream drops the message
    Ms-Gateway    who holds the client, and answers the claim
    Ms-Deaths     workers that died, or seem to have, while they ran it

A worker knows from them alone whom to ask whether it may run the attempt, before it decodes the
request: who sent one that cannot be decoded is told so. As with frames, headers that are not known
are ignored, and what is missing takes its default: here only the deaths have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from shared.wire.generic import WireError
from shared.wire.request import Request

_VERSION = b"NATS/1.0"
_MESSAGE_ID = b"Nats-Msg-Id"
_TTL = b"Nats-TTL"
_GATEWAY = b"Ms-Gateway"
_DEATHS = b"Ms-Deaths"


class Identity(NamedTuple):
    """Whose a queued message is.

    Attributes:
        gateway: Who holds the client.
        request_id: The request's ULID.
        attempt: Which attempt.
        deaths: Workers that died, or seem to have, while they ran it.
    """

    gateway: str
    request_id: str
    attempt: int
    deaths: int


def message_id(request_id: str, attempt: int) -> str:
    """The id under which an attempt is stored, so that saying it twice queues it once."""
    return f"{request_id}.{attempt}"


def headers(request: Request, ttl: int) -> bytes:
    """The header block of a request's message.

    Args:
        request: What is queued.
        ttl: Seconds for which it is of use.
    """
    own = message_id(request.id, request.attempt).encode()
    return b"%s\r\n%s: %s\r\n%s: %d\r\n%s: %s\r\n%s: %d\r\n\r\n" % (
        _VERSION, _MESSAGE_ID, own, _TTL, ttl, _GATEWAY, request.gateway.encode(), _DEATHS,
        request.deaths,
    )  # fmt: skip


def identity(block: bytes) -> Identity:
    """Read whose a message is.

    Raises:
        WireError: The headers name no gateway and attempt, or a number of deaths that is none.
    """
    found = dict(_fields(block))
    request_id, _, attempt = found.get(_MESSAGE_ID, b"").rpartition(b".")
    gateway, deaths = found.get(_GATEWAY, b""), found.get(_DEATHS, b"0")
    if not (gateway and request_id and attempt.isdigit() and deaths.isdigit()):
        raise WireError(f"headers {block[:200]!r} name no gateway and attempt")
    try:
        return Identity(gateway.decode(), request_id.decode(), int(attempt), int(deaths))
    except ValueError as error:
        raise WireError(f"headers {block[:200]!r}: {error}") from error


def stored_id(block: bytes) -> str | None:
    """The message id in a header block, or None where it has none."""
    for name, value in _fields(block):
        if name == _MESSAGE_ID:
            return value.decode(errors="replace")
    return None


def _fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in block.splitlines():
        name, _, value = line.partition(b": ")
        yield name, value
