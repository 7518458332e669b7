"""What a stream's items look like, and which format a client wants. Pure."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Protocol

from gateway.http.errors import openai_body
from gateway.http.functions.pack import JSON, MSGPACK, MSGPACK_NAMES, as_json, as_msgpack
from gateway.http.sse import PING
from shared.errors import MillstreamError

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
LINES_NAMES = (LINES, "application/ndjson", "application/jsonl", "application/jsonlines")
ENDED = "end"
"""The id of a stream's last event: an EventSource that comes back with it must stay away."""


class Format(Protocol):
    """A stream's body.

    Attributes:
        content_type: Of the response; told after the first item.
        comment: What keeps a silent stream open, or nothing.
    """

    content_type: str
    comment: ClassVar[bytes]

    def item(self, index: int, result: Any) -> bytes:
        """The next item.

        Raises:
            MillstreamError: It cannot be put so.
        """

    def finished(self, items: int) -> bytes:
        """The end of a complete stream, after so many items."""

    def failed(self, error: MillstreamError) -> bytes | None:
        """The end of a stream that failed; None where it can only be cut off."""


class Events:
    """Server-sent events: items without a name, then `finished` or `failed`."""

    content_type = f"{EVENTS}; charset=utf-8"
    comment: ClassVar[bytes] = PING

    def item(self, index: int, result: Any) -> bytes:
        """The next item; its id is its position."""
        return f"id: {index}\ndata: {as_json({'index': index, 'result': result})}\n\n".encode()

    def finished(self, items: int) -> bytes:
        """The end."""
        return f'id: {ENDED}\nevent: finished\ndata: {{"items":{items}}}\n\n'.encode()

    def failed(self, error: MillstreamError) -> bytes:
        """A failure; where a retry may help, an EventSource may come back."""
        end = "" if error.retryable else f"id: {ENDED}\n"
        return f"{end}event: failed\ndata: {json.dumps(openai_body(error))}\n\n".encode()


class Lines:
    """An object a line; a failure is the last."""

    content_type = LINES
    comment: ClassVar[bytes] = b""

    def item(self, index: int, result: Any) -> bytes:
        """The next item."""
        return f"{as_json({'index': index, 'result': result})}\n".encode()

    def finished(self, items: int) -> bytes:
        """The body ends."""
        return b""

    def failed(self, error: MillstreamError) -> bytes:
        """A failure."""
        return f"{json.dumps(openai_body(error))}\n".encode()


class Packed:
    """An object of msgpack after the other; a failure is the last."""

    content_type = MSGPACK
    comment: ClassVar[bytes] = b""

    def item(self, index: int, result: Any) -> bytes:
        """The next item."""
        return as_msgpack({"index": index, "result": result})

    def finished(self, items: int) -> bytes:
        """The body ends."""
        return b""

    def failed(self, error: MillstreamError) -> bytes:
        """A failure."""
        return as_msgpack(openai_body(error))


def accepted(header: str) -> list[str]:
    """The media types of an Accept header, without wildcards, the most wanted first."""
    found = []
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0 and "/" in name and not name.endswith("*"):
            found.append((-weight, name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def stream_of(accept: list[str], *, packed: bool) -> Format:
    """The format of a stream: what is wanted, else what was sent, else events."""
    for name in accept:
        if name == EVENTS:
            return Events()
        if name in LINES_NAMES:
            return Lines()
        if name in MSGPACK_NAMES:
            return Packed()
    return Packed() if packed else Events()


def wants_stream(accept: list[str]) -> bool:
    """Whether one answer is wanted as a stream of one item."""
    first = next((n for n in accept if n in (JSON, EVENTS, *LINES_NAMES, *MSGPACK_NAMES)), "")
    return first in (EVENTS, *LINES_NAMES)


def wants_msgpack(accept: list[str], *, packed: bool) -> bool:
    """Whether one answer is to be msgpack, else JSON: what is wanted, else what was sent."""
    first = next((name for name in accept if name in (JSON, *MSGPACK_NAMES)), "")
    return packed if not first else first != JSON
