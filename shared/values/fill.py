"""From plain Python, or from JSON, to a protobuf message, by its descriptor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from shared.descriptors import is_wrapper
from shared.errors import InvalidRequest
from shared.values.media import Media
from shared.values.scalars import converter, from_base64, keys, plain, refusal, set_timestamp, text
from shared.values.tensors import Tensor, fault, join, packed, tensor

DEEPEST_JSON = 20
"""Of lists and objects in one another in google.protobuf.Value: parsers stop at 100 messages."""

_EXACT = 1 << 53
_VALUE = "google.protobuf.Value"


class Fill:
    """Sets messages from values of one kind.

    Args:
        json: Whether the values are JSON's: bytes as base64, and what has no type there as objects.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._special = {
            "millstream.v1.Tensor": self._tensor,
            "millstream.v1.Media": self._media,
            "google.protobuf.Timestamp": set_timestamp,
            _VALUE: set_json,
        }

    def message(self, message: Any, mapping: Any, path: str) -> None:
        """Set a message's fields; None is not given.

        Raises:
            InvalidRequest: A name that is not known, or a value of a wrong type.
        """
        if dataclasses.is_dataclass(mapping) and not isinstance(mapping, type):
            mapping = {f.name: getattr(mapping, f.name) for f in dataclasses.fields(mapping)}
        if not isinstance(mapping, Mapping):
            raise refusal(mapping, path, "named values")
        known = message.DESCRIPTOR.fields_by_name
        for name, value in mapping.items():
            field = known.get(name) if isinstance(name, str) else None
            if field is None:
                here = join(path, str(name)[:64])
                raise InvalidRequest(
                    f"{here} is not known: want {', '.join(known) or 'nothing'}", field=here
                )
            self._field(message, field, value, join(path, field.name))

    def _field(self, message: Any, field: FieldDescriptor, value: Any, path: str) -> None:
        of = field.message_type
        if value is None and (field.is_repeated or of is None or of.full_name != _VALUE):
            return
        if of is not None and of.GetOptions().map_entry:
            self._map(getattr(message, field.name), of.fields_by_name["value"], value, path)
        elif field.is_repeated:
            self._list(getattr(message, field.name), field, value, path)
        elif of is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self._inner(inner, value, path)
        else:
            setattr(message, field.name, converter(field, json=self._json)(value, path))

    def _list(self, values: Any, field: FieldDescriptor, given: Any, path: str) -> None:
        if not isinstance(given, Sequence) and hasattr(given, "tolist"):
            given = given.tolist()
        if not isinstance(given, Sequence) or isinstance(given, str | bytes | bytearray):
            raise refusal(given, path, "a list")
        if field.message_type is not None:
            for index, value in enumerate(given):
                self._inner(values.add(), value, f"{path}[{index}]")
            return
        convert = converter(field, json=self._json)
        values.extend([convert(value, f"{path}[{index}]") for index, value in enumerate(given)])

    def _map(self, values: Any, field: FieldDescriptor, given: Any, path: str) -> None:
        if not isinstance(given, Mapping):
            raise refusal(given, path, "values by name")
        for key, value in keys(given, path).items():
            here = f'{path}["{key[:64]}"]'
            name = text(key, here)
            if field.message_type is not None:
                self._inner(values[name], value, here)
            else:
                values[name] = converter(field, json=self._json)(value, here)

    def _inner(self, message: Any, value: Any, path: str) -> None:
        """Set a message that may stand for something else than a record."""
        described = message.DESCRIPTOR
        special = self._special.get(described.full_name)
        if special is not None:
            special(message, value, path)
        elif is_wrapper(described):
            if value is None:
                raise refusal(value, path, "a list or values by name")
            self._field(message, described.fields[0], value, path)
        else:
            self.message(message, value, path)

    def _tensor(self, message: Any, value: Any, path: str) -> None:
        set_tensor(message, _json_tensor(value, path) if self._json else tensor(value, path))

    def _media(self, message: Any, value: Any, path: str) -> None:
        if self._json:
            given = _members(value, path, "media", ("type", "data"))
            kind = text(given.get("type"), join(path, "type"))
            value = Media(kind, from_base64(given.get("data"), join(path, "data")))
        if not isinstance(value, Media):
            raise refusal(value, path, "media")
        message.type, message.data = value.type, value.data


def set_tensor(message: Any, value: Tensor) -> None:
    """Set a Tensor message."""
    message.dtype = value.dtype
    message.shape.extend(value.shape)
    message.data = value.data


def set_json(message: Any, value: Any, path: str, depth: int = 0) -> None:
    """Set a google.protobuf.Value."""
    value = plain(value)
    if depth > DEEPEST_JSON:
        raise InvalidRequest(f"{path} is nested more than {DEEPEST_JSON} deep", field=path)
    if value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        if abs(value) > _EXACT:
            raise InvalidRequest(
                f"{path} is too large: JSON holds whole numbers to {_EXACT}", field=path
            )
        message.number_value = value
    elif isinstance(value, float):
        message.number_value = value
    elif isinstance(value, str):
        message.string_value = text(value, path)
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        fields = message.struct_value.fields
        for key, item in keys(value, path).items():
            here = f'{path}["{key[:64]}"]'
            set_json(fields[text(key, here)], item, here, depth + 1)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        values = message.list_value.values
        for index, item in enumerate(value):
            set_json(values.add(), item, f"{path}[{index}]", depth + 1)
    else:
        raise refusal(value, path, "what JSON has")


def _json_tensor(value: Any, path: str) -> Tensor:
    given = _members(value, path, "a tensor", ("dtype", "shape", "data"))
    dtype = text(given.get("dtype"), join(path, "dtype"))
    shape, data = given.get("shape"), given.get("data")
    here = join(path, "shape")
    if shape is not None and not (
        isinstance(shape, list) and all(type(one) is int and one >= 0 for one in shape)
    ):
        raise refusal(shape, here, "a list of lengths")
    if isinstance(data, str | bytes):
        made = Tensor(dtype, tuple(shape or ()), from_base64(data, join(path, "data")))
        part, why = fault(made.dtype, made.shape, made.data)
        if part:
            raise InvalidRequest(f"{join(path, part)} {why}", field=join(path, part))
        return made
    made = packed(data, dtype, path)
    if shape is None or tuple(shape) == made.shape:
        return made
    flat = len(made.shape) == 1 and fault(dtype, shape, made.data) == ("", "")
    if not flat:
        raise InvalidRequest(
            f"{here} is {shape}: want {list(made.shape)}, as its data is nested", field=here
        )
    return Tensor(dtype, tuple(shape), made.data)


def _members(value: Any, path: str, what: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    """A JSON object that stands for something, with no other members than these."""
    if not isinstance(value, Mapping):
        raise refusal(value, path, f"{what}: an object of {', '.join(names)}")
    for name in value:
        if name not in names:
            here = join(path, str(name)[:64])
            raise InvalidRequest(f"{here} is not known: want {', '.join(names)}", field=here)
    return value
