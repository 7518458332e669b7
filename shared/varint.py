"""Protobuf's varints as bytes: what is written by hand for speed is made of them."""

from __future__ import annotations

KNOWN = (
    *[bytes((number,)) for number in range(1 << 7)],
    *[bytes((number & 0x7F | 0x80, number >> 7)) for number in range(1 << 7, 1 << 14)],
)
"""Those of one and two bytes: most lengths, indices and many ids, looked up without a call."""

LIMIT = len(KNOWN)


def varint(number: int) -> bytes:
    """A number from 0 on as protobuf writes it: seven bits a byte, the least first."""
    if LIMIT <= number < 1 << 21:  # Most token ids that are not known.
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
