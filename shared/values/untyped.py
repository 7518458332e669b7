"""`millstream.v1.Value`: plain Python in it and out of it, without a type known beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from millstream.v1 import types_pb2
from shared.errors import InvalidRequest
from shared.values.fill import set_tensor
from shared.values.media import Media
from shared.values.scalars import keys, plain, refusal, rfc3339, text
from shared.values.tensors import Tensor, tensor
from shared.values.unpack import get_media, get_tensor

DEEPEST = 30
"""Of lists and maps in one another: parsers stop at 100 messages, and a map takes three."""

_LARGEST = (1 << 63) - 1


def to_value(python: Any, path: str = "", into: types_pb2.Value | None = None) -> types_pb2.Value:
    """A Value of plain Python.

    Args:
        python: None, bool, int, float, str, bytes, lists, mappings from str, dataclasses, a Tensor
            or what `tensor` takes, Media, an enum's member (its name), a time (as text).
        path: Where it is, for errors.
        into: What to set, if not a new one.

    Raises:
        InvalidRequest: It is something else, or nested too deeply.
    """
    value = types_pb2.Value() if into is None else into
    _set(value, python, path, 0)
    return value


def from_value(value: types_pb2.Value) -> Any:
    """The plain Python in a Value: arrays as Tensor, media as Media."""
    kind = value.WhichOneof("kind")
    if kind == "map_value":
        inner = value.map_value.values
        return {key: from_value(inner[key]) for key in inner}
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    if kind == "tensor_value":
        return get_tensor(value.tensor_value)
    if kind == "media_value":
        return get_media(value.media_value)
    return None if kind is None else getattr(value, kind)


def _set(value: types_pb2.Value, python: Any, path: str, depth: int) -> None:
    if depth > DEEPEST:
        raise InvalidRequest(f"{path} is nested more than {DEEPEST} deep", field=path)
    if isinstance(python, list | tuple):
        value.list_value.SetInParent()
        for index, item in enumerate(python):
            _set(value.list_value.values.add(), item, f"{path}[{index}]", depth + 1)
        return
    if dataclasses.is_dataclass(python) and not isinstance(python, type | Tensor | Media):
        python = {f.name: getattr(python, f.name) for f in dataclasses.fields(python)}
    if isinstance(python, Mapping):
        value.map_value.SetInParent()
        for key, item in keys(python, path).items():
            here = f'{path}["{key[:64]}"]'
            _set(value.map_value.values[text(key, here)], item, here, depth + 1)
        return
    _set_single(value, plain(python), path)


def _set_single(value: types_pb2.Value, python: Any, path: str) -> None:
    match python:
        case None:
            return
        case Enum():
            value.string_value = python.name
        case bool():
            value.bool_value = python
        case int():
            if not -_LARGEST - 1 <= python <= _LARGEST:
                where = path or "the value"
                raise InvalidRequest(f"{where} is too large: want at most {_LARGEST}", field=path)
            value.int_value = python
        case float():
            value.double_value = python
        case str():
            value.string_value = text(python, path)
        case bytes() | bytearray() | memoryview():
            value.bytes_value = bytes(python)
        case Media():
            value.media_value.type, value.media_value.data = python.type, python.data
        case datetime():
            value.string_value = rfc3339(python)
        case _ if isinstance(python, Tensor) or hasattr(python, "__array__"):
            set_tensor(value.tensor_value, tensor(python, path))
        case _:
            raise refusal(python, path, "None, a number, text, bytes, a list, an array or media")
