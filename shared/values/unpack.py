"""From a protobuf message to plain Python, by its descriptor, and from that to JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from shared.descriptors import is_wrapper
from shared.values.media import Media
from shared.values.scalars import members, rfc3339, to_datetime
from shared.values.tensors import Tensor

_Read: TypeAlias = Callable[[Any], Any]

_EXACT = 1 << 53


def fields(message: Any) -> dict[str, Any]:
    """A record's fields by name; what is not set is left out, lists and maps are always there."""
    has = message.HasField
    return {
        name: read(getattr(message, name))
        for name, presence, read in _plan(message.DESCRIPTOR)
        if not presence or has(name)
    }


def get_tensor(message: Any) -> Tensor:
    """Of a Tensor message."""
    return Tensor(message.dtype, tuple(message.shape[:]), message.data)


def get_media(message: Any) -> Media:
    """Of a Media message."""
    return Media(message.type, message.data)


def get_json(message: Any) -> Any:
    """Of a google.protobuf.Value; whole numbers come as int."""
    kind = message.WhichOneof("kind")
    if kind == "number_value":
        number = message.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "struct_value":
        inner = message.struct_value.fields
        return {key: get_json(inner[key]) for key in inner}
    if kind == "list_value":
        return [get_json(value) for value in message.list_value.values]
    return None if kind in (None, "null_value") else getattr(message, kind)


def jsonable(value: Any) -> Any:
    """Plain Python as JSON: bytes are base64, and what has no type there is an object."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if isinstance(value, Tensor):
        data = base64.b64encode(value.data).decode()
        return {"dtype": value.dtype, "shape": list(value.shape), "data": data}
    if isinstance(value, Media):
        return {"type": value.type, "data": base64.b64encode(value.data).decode()}
    if isinstance(value, datetime):
        return rfc3339(value)
    return value


@lru_cache(maxsize=1024)
def _plan(described: Descriptor) -> tuple[tuple[str, bool, _Read], ...]:
    """Each field's name, whether it tells unset, and how it is read."""
    return tuple((f.name, f.has_presence, _reader(f)) for f in described.fields)


def _reader(field: FieldDescriptor) -> _Read:
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        return _map_reader(of.fields_by_name["value"])
    read = _single_reader(field)
    if not field.is_repeated:
        return read
    return list if read is _same else lambda values: [read(value) for value in values]


def _map_reader(field: FieldDescriptor) -> _Read:
    read = _single_reader(field)
    if read is _same:
        return dict
    return lambda values: {key: read(values[key]) for key in values}


def _single_reader(field: FieldDescriptor) -> _Read:
    if field.enum_type is not None:
        names = members(field.enum_type)
        return lambda number: names.get(number, number)
    if field.message_type is None:
        return _same
    special = _SPECIAL.get(field.message_type.full_name)
    if special is not None:
        return special
    if is_wrapper(field.message_type):
        return lambda wrapper: _plan(wrapper.DESCRIPTOR)[0][2](wrapper.values)
    return fields


def _same(value: Any) -> Any:
    return value


_SPECIAL: dict[str, _Read] = {
    "millstream.v1.Tensor": get_tensor,
    "millstream.v1.Media": get_media,
    "google.protobuf.Timestamp": to_datetime,
    "google.protobuf.Value": get_json,
}
