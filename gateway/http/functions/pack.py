"""A function's values as JSON and as msgpack: bytes, arrays and times are natural in msgpack."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from gateway.halves import may_hold_half, refuse_halves
from shared.errors import InvalidRequest
from shared.values import Media, Tensor, jsonable

JSON = "application/json"
MSGPACK = "application/msgpack"
MSGPACK_NAMES = (MSGPACK, "application/x-msgpack", "application/vnd.msgpack")


def read(data: bytes, *, packed: bool) -> dict[str, Any]:
    """The object that a body or a message is.

    Args:
        data: The body.
        packed: Whether it is msgpack, else JSON.

    Raises:
        InvalidRequest: It is neither, or no object, or holds half of a surrogate pair.
    """
    name = "msgpack" if packed else "JSON"
    try:
        value = msgpack.unpackb(data, timestamp=3) if packed else json.loads(data)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"the body is no {name}: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is a {name} {type(value).__name__}: want an object")
    if not packed and may_hold_half(data):
        inputs = value.get("inputs")
        if not isinstance(inputs, dict):
            inputs = {}
        refuse_halves(inputs)  # A parameter is told by its own name.
        refuse_halves({name: one for name, one in value.items() if one is not inputs})
    return value


def as_json(value: Any) -> str:
    """JSON of an object whose values may be a function's."""
    return json.dumps(jsonable(value), separators=(",", ":"))


def as_msgpack(value: Any) -> bytes:
    """Msgpack of the same: an array is {dtype, shape, data}, media {type, data}, in bytes."""
    packed: bytes = msgpack.packb(value, default=_unusual, datetime=True)
    return packed


def _unusual(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"dtype": value.dtype, "shape": value.shape, "data": value.data}
    if isinstance(value, Media):
        return {"type": value.type, "data": value.data}
    raise TypeError(f"{type(value).__name__} is no value of a function")
