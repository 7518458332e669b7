"""Reads a call's request headers: pure, with a Refusal for each way in which they can be wrong."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from multidict import MultiDict

Headers = Sequence[tuple[str, str]]
Metadata = MultiDict[str | bytes]

ACCEPT_ENCODING = ("grpc-accept-encoding", "identity,gzip")
ENCODINGS = ("identity", "gzip")
LONGEST_TIMEOUT = 365 * 86400.0
_CONTENT_TYPES = ("application/grpc", "application/grpc+proto")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_RESERVED = {"te", "content-type", "user-agent"}


class Refusal(GRPCError):
    """A call turned away before its handler did anything for it.

    Args:
        counter: The name in ServerCounters to count it under.
        status: The gRPC status of the answer.
        message: What was wrong.
        http_status: The HTTP status of the answer; 200 for one in gRPC's own terms.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        counter: str,
        status: Status,
        message: str,
        *,
        http_status: int = 200,
        headers: Headers = (),
    ) -> None:
        super().__init__(status, message)
        self.counter = counter
        self.http_status = http_status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """What the headers of a call say.

    Attributes:
        path: `/package.Service/Method`.
        encoding: How messages with the compressed flag are compressed.
        timeout: Seconds the client waits for the end of the call, or None.
        metadata: The client's own headers; those that end in `-bin` decoded to bytes. Calls whose
            headers are the same share it: a handler gets a copy.
    """

    path: str
    content_type: str
    encoding: str
    timeout: float | None
    metadata: Metadata
    user_agent: str | None


def parse_request(headers: Headers, max_bytes: int) -> Request:
    """Check the headers of a call and take them apart.

    Raises:
        Refusal: The call cannot be served; it says with which answer.
    """
    if type(headers) is tuple:  # Those of a block that comes again and again.
        return _parse_known(headers, max_bytes)
    return _parse(headers, max_bytes)


@lru_cache(256)
def _parse_known(headers: tuple[tuple[str, str], ...], max_bytes: int) -> Request:
    return _parse(headers, max_bytes)


def _parse(headers: Headers, max_bytes: int) -> Request:
    fields = dict(headers)
    _check_http(fields)
    size = sum(len(name) + len(value) + 32 for name, value in headers)
    if size > max_bytes:
        raise Refusal(
            "refused_header_size",
            Status.RESOURCE_EXHAUSTED,
            f"the request's metadata takes {size} bytes and at most {max_bytes} are allowed",
        )
    encoding = fields.get("grpc-encoding", "identity")
    if encoding not in ENCODINGS:
        raise Refusal(
            "refused_encoding",
            Status.UNIMPLEMENTED,
            f"grpc-encoding {encoding[:50]!r} is not supported: use identity or gzip",
            headers=(ACCEPT_ENCODING,),
        )
    return Request(
        path=fields.get(":path", ""),
        content_type=fields["content-type"],
        encoding=encoding,
        timeout=_parse_timeout(fields.get("grpc-timeout")),
        metadata=_parse_metadata(headers),
        user_agent=fields.get("user-agent"),
    )


def _check_http(fields: dict[str, str]) -> None:
    method = fields.get(":method")
    if method != "POST":
        raise Refusal(
            "refused_method",
            Status.UNKNOWN,
            "gRPC calls use POST",
            http_status=405,
        )
    content_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _CONTENT_TYPES:
        raise Refusal(
            "refused_content_type",
            Status.UNKNOWN,
            "the content-type must be application/grpc or application/grpc+proto",
            http_status=415,
        )
    if fields.get("te") != "trailers":
        raise Refusal(
            "refused_content_type",
            Status.UNKNOWN,
            'the "te: trailers" header is missing',
            http_status=400,
        )


def _parse_timeout(value: str | None) -> float | None:
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise Refusal(
            "refused_timeout",
            Status.INVALID_ARGUMENT,
            f"grpc-timeout {value[:50]!r} is malformed: at most 8 digits and one of H M S m u n",
        )
    timeout = min(int(match[1]) * _UNITS[match[2]], LONGEST_TIMEOUT)
    if timeout <= 0:
        raise Refusal(
            "refused_deadline", Status.DEADLINE_EXCEEDED, "the deadline had passed on arrival"
        )
    return timeout


def _parse_metadata(headers: Iterable[tuple[str, str]]) -> Metadata:
    metadata: Metadata = MultiDict()
    for name, value in headers:
        if name.startswith((":", "grpc-")) or name in _RESERVED:
            continue
        if not name.endswith("-bin"):
            metadata.add(name, value)
            continue
        for part in value.split(","):  # a proxy may have joined several
            metadata.add(name, _parse_bin(name, part.strip()))
    return metadata


def _parse_bin(name: str, value: str) -> bytes:
    padded = value.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        return b64decode(padded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Refusal(
            "refused_metadata",
            Status.INVALID_ARGUMENT,
            f"metadata {name[:50]!r} is not base64",
        ) from error
