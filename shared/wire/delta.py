"""`Delta` messages as bytes without protobuf's objects: one is sent per token.

Building and serializing two message objects costs three times as much as putting the few fields
together by hand. The bytes are those that protobuf makes (fields in the order of their numbers,
zero values left out), which a test holds for any content; whatever is rare (log probabilities) is
left to protobuf itself, in the gateway's outlet.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.varint import KNOWN, LIMIT, varint

_SHORT = 64
"""Bytes of text below which all lengths of a message of one token are varints of one byte."""


def encode_delta(index: int, ids: Sequence[int], text: str, choice: int, attempt: int) -> bytes:
    """Encode `GenerateResponse(delta=Delta(...))` without log probabilities.

    Args:
        index: At least 0, below 2^64.
        ids: Each at least 0, below 2^32.
        text: Without lone surrogates.
        choice: At least 0, below 2^32.
        attempt: At least 0, below 2^32.

    Raises:
        UnicodeEncodeError: The text holds a lone surrogate.
    """
    data = text.encode()
    if len(ids) == 1 and not (choice or attempt):
        return encode_one(index, ids[0], data)
    return _encode(index, ids, data, choice, attempt)


def encode_one(index: int, token: int, data: bytes) -> bytes:
    """Encode one token of a first attempt's first choice; `data` is its text as UTF-8."""
    size = len(data)
    if index >= LIMIT or not 0 < size < _SHORT:
        return _encode(index, (token,), data, 0, 0)
    place = b"\x08" + KNOWN[index] if index else b""
    id_ = KNOWN[token] if token < LIMIT else varint(token)
    of_body = len(place) + 4 + size + len(id_)
    return b"\x12%c%b\x12%c%b\x1a%c%b" % (of_body, place, size, data, len(id_), id_)


def _encode(index: int, ids: Sequence[int], data: bytes, choice: int, attempt: int) -> bytes:
    known = KNOWN
    size = len(data)
    body = b""
    if index:
        body = b"\x08" + (known[index] if index < LIMIT else varint(index))
    if data:
        body += b"\x12%b%b" % (known[size] if size < LIMIT else varint(size), data)
    if ids:
        packed = b"".join([known[n] if n < LIMIT else varint(n) for n in ids])
        size = len(packed)
        body += b"\x1a%b%b" % (known[size] if size < LIMIT else varint(size), packed)
    if choice:
        body += b"\x28" + varint(choice)
    if attempt:
        body += b"\x30" + varint(attempt)
    size = len(body)
    return b"\x12%b%b" % (known[size] if size < LIMIT else varint(size), body)
