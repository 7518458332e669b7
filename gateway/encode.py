"""`Delta` messages as bytes without protobuf's objects: one is sent per token.

Building and serializing two message objects costs three times as much as joining the few fields by
hand. The bytes are those that protobuf makes (fields in the order of their numbers, zero values
left out), which a test holds for any content; whatever is rare (log probabilities) is left to
protobuf itself, in the outlet.
"""

from __future__ import annotations

from collections.abc import Sequence


def _varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the least first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_KNOWN = tuple([_varint(number) for number in range(1 << 14)])
"""All varints of one and two bytes: most lengths, indices and many ids."""

_LIMIT = len(_KNOWN)

_SHORT = 1 << 12
"""Bytes of text with which a message of one token still has a known length."""

_INDEX = (b"", *[b"\x08" + number for number in _KNOWN[1:]])
_TEXT = (b"", *[b"\x12" + number for number in _KNOWN[1:_SHORT]])
_ID = tuple([b"\x1a" + _KNOWN[len(number)] + number for number in _KNOWN])
"""The fields `index`, the head of `text` and `token_ids` of a single one, by their small values."""


def _long(number: int) -> bytes:
    """The varint of a number that is not known; ids below 2^21 are the usual ones."""
    if number < 1 << 21:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    return _varint(number)


def _single(token: int) -> bytes:
    """The field `token_ids` of one large id."""
    packed = _long(token)
    return b"\x1a%c%b" % (len(packed), packed)


def delta(index: int, ids: Sequence[int], text: str, choice: int, attempt: int) -> bytes:
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
    size = len(data)
    if len(ids) == 1 and index < _LIMIT and size < _SHORT and not (choice or attempt):
        # A token of a paced stream.
        token = _ID[ids[0]] if ids[0] < _LIMIT else _single(ids[0])
        body = b"".join((_INDEX[index], _TEXT[size], data, token))
        return b"".join((b"\x12", _KNOWN[len(body)], body))
    known = _KNOWN
    body = b""
    if index:
        body = b"\x08" + (known[index] if index < _LIMIT else _long(index))
    if data:
        body += b"\x12%b%b" % (known[size] if size < _LIMIT else _long(size), data)
    if ids:
        packed = b"".join([known[n] if n < _LIMIT else _long(n) for n in ids])
        size = len(packed)
        body += b"\x1a%b%b" % (known[size] if size < _LIMIT else _long(size), packed)
    if choice:
        body += b"\x28" + _varint(choice)
    if attempt:
        body += b"\x30" + _varint(attempt)
    size = len(body)
    return b"\x12%b%b" % (known[size] if size < _LIMIT else _long(size), body)
