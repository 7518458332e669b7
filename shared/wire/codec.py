"""Frames to bytes and back, and the only module of the wire that knows msgpack.

Every frame has a generic encoder and decoder, made from its dataclass (`generic.py`); what comes
and goes by the thousand has a quicker one: `encode_chunk` here, the decoders of `fast.py`. A token
alone may come without msgpack (`token.py`), and is decoded as the chunk that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from shared.wire.fast import decode_chunk, decode_parts, decode_request, digest_entry, quick
from shared.wire.generic import WireError, check, decoder, values
from shared.wire.tags import NESTED, TAGS, Frame
from shared.wire.token import FIRST, decode_token

VERSION = 1
MIN_VERSION = 1


def _nested(value: Any) -> tuple[Any, ...]:
    """What lies inside a frame, as msgpack takes it: an array of its fields."""
    of = _NESTED_VALUES.get(type(value))
    if of is None:
        raise TypeError(f"{type(value).__name__} is nothing that a frame holds")
    return of(value)


_packb: Callable[[tuple[Any, ...]], bytes] = msgpack.Packer(autoreset=True, default=_nested).pack


def encode(frame: Frame) -> bytes:
    """Turn a frame into bytes of the current version; only on the event loop's thread."""
    head, fields = _ENCODERS[type(frame)]
    return _packb(head + fields(frame))


def encode_chunk(attempt: int, exec_: int, index: int, ids: list[int], text: str,
                 ends: list[int] | None, choice: int, logprobs: Any) -> bytes:  # fmt: skip
    """Encode a `Chunk` from its fields: the publisher's fast path, the same bytes as `encode`."""
    return _packb((VERSION, 3, attempt, exec_, index, ids, text, ends, choice, logprobs))


def decode(data: bytes) -> Frame:
    """Turn bytes into a frame.

    Raises:
        WireError: Neither msgpack nor a token, an unknown version or tag, a missing field or a
            wrong type.
    """
    if data.startswith(FIRST):
        return decode_token(data)
    try:
        array = msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {error}") from error
    if type(array) is not tuple or len(array) < 2:
        raise WireError("not a frame: want an array of version, tag and fields")
    version = array[0]
    if type(version) is not int or version < MIN_VERSION:
        raise WireError(f"wire version {version!r}: this build reads {MIN_VERSION} and newer")
    build = _DECODERS.get(array[1]) if type(array[1]) is int else None
    if build is None:
        raise WireError(f"unknown tag {array[1]!r}")
    frame: Frame = build(array, 2)
    return frame


_NESTED_VALUES = {cls: values(cls) for cls in NESTED}
_ENCODERS = {cls: ((VERSION, tag), values(cls)) for tag, cls in TAGS.items()}

_NESTED_CHECKS = {cls.__name__: check(cls) for cls in NESTED} | {"DigestEntry": digest_entry}
_DECODERS: dict[int, Callable[[tuple[Any, ...], int], Any]] = {
    **{tag: quick(cls, decoder(cls, _NESTED_CHECKS)) for tag, cls in TAGS.items()},
    3: decode_chunk,
    7: decode_parts,
    40: decode_request,
}
