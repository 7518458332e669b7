"""The header blocks of an answer that goes well, as bytes without h2's and hpack's objects.

They are the same for every call but for one id, and making them anew was a quarter of a one-token
request. The blocks name no entry of the dynamic table and add none (RFC 7541, 6.2.2), so they may
stand between blocks of h2's own encoder, whose state they leave alone. Everything else that h2
keeps of a stream is kept here too; where anything is out of the ordinary the caller takes h2's way.
"""

from __future__ import annotations

from h2.stream import H2Stream, StreamInputs
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from gateway.grpc.http2 import SENDABLE, SERVER_OPEN, GuardedH2

CONTENT_TYPE = "application/grpc+proto"
_HEADERS = 1
_END_STREAM, _END_HEADERS = 0x1, 0x4
_SEND_END_STREAM = StreamInputs.SEND_END_STREAM
_LONGEST = 126
"""Bytes whose length still fits the seven bits of a string's first byte."""

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def _string(value: bytes) -> bytes:
    packed: bytes = _huffman.encode(value)
    return bytes((0x80 | len(packed),)) + packed


# ":status: 200" is entry 8 of the static table, the name "content-type" entry 31.
_STATUS_200 = b"\x88"
_BEGIN = _STATUS_200 + b"\x0f\x10" + _string(CONTENT_TYPE.encode()) + b"\x00"
_REQUEST_ID = _BEGIN + _string(b"x-request-id")
_OK = b"\x00" + _string(b"grpc-status") + _string(b"0")


def _frame(flags: int, stream_id: int, block: bytes) -> bytes:
    return b"%b\x01%c%b%b" % (len(block).to_bytes(3), flags, stream_id.to_bytes(4), block)


def begin(h2: GuardedH2, stream: H2Stream | None, request_id: str) -> bytes | None:
    """The HEADERS frame that begins an answer, noted in h2's state; None where it is h2's to send.

    Args:
        h2: The connection.
        stream: Its stream, or None where that is gone.
        request_id: Becomes `x-request-id`; printable ASCII.
    """
    if stream is None or len(request_id) > _LONGEST or not _simple(h2, stream):
        return None
    machine = stream.state_machine
    if machine.headers_sent:
        return None
    machine.headers_sent = True
    name = request_id.encode()
    return _frame(_END_HEADERS, stream.stream_id, b"%b%c%b" % (_REQUEST_ID, len(name), name))


def finish(h2: GuardedH2, stream: H2Stream | None) -> bytes | None:
    """The HEADERS frame that ends an answer with status OK; None where it is h2's to send."""
    if stream is None or not _simple(h2, stream):
        return None
    machine = stream.state_machine
    if not machine.headers_sent or machine.trailers_sent:
        return None
    machine.trailers_sent = True
    machine.process_input(_SEND_END_STREAM)
    return _frame(_END_HEADERS | _END_STREAM, stream.stream_id, _OK)


def _simple(h2: GuardedH2, stream: H2Stream) -> bool:
    """Whether the stream takes headers, and hpack has nothing to tell the peer in the next ones."""
    return (
        stream.state_machine.state in SENDABLE
        and h2.state_machine.state is SERVER_OPEN
        and not h2.encoder.table_size_changes
    )
