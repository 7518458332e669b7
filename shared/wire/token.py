"""A chunk of one token with its message to the client ready: what a paced stream sends.

A gateway that gets one looks at three numbers and passes the rest on; of any other chunk it makes
an object, and of that the message, a fifth of its instructions a token. There is one only where
the request asks for it (`Request.ready`), of one token of a first attempt's first choice, without
log probabilities and not the first. What it says is a `Chunk`: `decode` gives that to whoever
cannot pass the message on, and from the chunk the gateway makes the same message.

The frame: `FIRST`, a byte that begins no array of msgpack, the exec (uint64), the index and the
token's id (uint32), the bytes of its text (uint16), big-endian; then a `GenerateResponse`. That is
part of the format: where a message of the same numbers changes, `FIRST` and what a request asks for
change too.
"""

from __future__ import annotations

import struct

from shared.wire.answer import Chunk
from shared.wire.delta import encode_one
from shared.wire.generic import WireError

FIRST = b"\1"
_HEAD = struct.Struct(">BQIIH")
TOKEN_HEAD = _HEAD.size
"""Bytes before the message."""

token_head = _HEAD.unpack_from
"""Of a frame: the first byte, exec, index, token and size of the text."""


def encode_token(exec_: int, index: int, token: int, text: str) -> bytes | None:
    """Encode `Chunk(0, exec_, index, (token,), text)`, or None where its numbers do not fit.

    Raises:
        UnicodeEncodeError: The text holds a lone surrogate.
    """
    data = text.encode()
    try:
        head = _HEAD.pack(FIRST[0], exec_, index, token, len(data))
    except struct.error:
        return None
    return head + encode_one(index, token, data)


def is_token(data: bytes) -> bool:
    """Whether bytes begin as such a frame does, and have what `token_head` reads."""
    return data[:1] == FIRST and len(data) > TOKEN_HEAD


def decode_token(data: bytes) -> Chunk:
    """Read the frame as the chunk that it is.

    Raises:
        WireError: It is too short, or its message is not that of its numbers.
    """
    if len(data) <= TOKEN_HEAD:
        raise WireError(f"a token's frame of {len(data)} bytes")
    _, exec_, index, token, size = token_head(data)
    id_size = 2 + max(1, (token.bit_length() + 6) // 7)  # The last field, with its tag and length.
    try:
        text = data[-id_size - size : -id_size].decode()
    except UnicodeDecodeError as error:
        raise WireError(f"a token's frame: {error}") from None
    if data != encode_token(exec_, index, token, text):
        raise WireError(f"token {token} at {index}: the message is not its own")
    return Chunk(0, exec_, index, (token,), text)
