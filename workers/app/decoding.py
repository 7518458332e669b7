"""From messages, which the gateway has checked, to what a function is called with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC
from typing import Any, TypeAlias

from shared.errors import InvalidRequest
from shared.signature import EnumType, ListType, MapType, MediaType, Record, Scalar, TensorType
from shared.values.tensors import Tensor, as_numpy
from workers.app.markers import ANY_LENGTH
from workers.app.nodes import Node, Slot

Dimensions: TypeAlias = dict[str, int]
Decode: TypeAlias = Callable[[Any, Dimensions], Any]
"""A value as Python has it; the lengths of named dimensions are noted."""

_WHOLE = 1 << 53


def fields_decoder(slots: tuple[Slot, ...]) -> Callable[[Any, Dimensions], dict[str, Any]]:
    """What decodes a message's fields; what is not given is left out, or None where it may be.

    A list or dict that is empty was not given: protobuf has no difference.
    """
    many = (ListType, MapType)
    parts = [
        (slot.field.name, slot, isinstance(slot.field.type, many), decoder(slot.node))
        for slot in slots
    ]

    def of(message: Any, dimensions: Dimensions) -> dict[str, Any]:
        given: dict[str, Any] = {}
        has = message.HasField
        for name, slot, is_many, decode in parts:
            raw = getattr(message, name) if is_many or has(name) else None
            if is_many and not raw and not slot.field.required:
                raw = None
            if raw is None:
                if slot.none:
                    given[slot.key] = None
            elif decode is None:
                given[slot.key] = raw
            else:
                given[slot.key] = _located(decode, raw, dimensions, name)
        return given

    return of


def _located(decode: Decode, raw: Any, dimensions: Dimensions, name: str) -> Any:
    """Decode; a refusal by a record's own checks gets its path."""
    try:
        return decode(raw, dimensions)
    except InvalidRequest as error:
        field = f"{name}.{error.field}" if error.field else name
        raise InvalidRequest(error.message, field=field) from None


def decoder(node: Node) -> Decode | None:
    """What decodes values of a type; None where they are as Python has them."""
    match node.type:
        case Scalar(kind="json"):
            return lambda raw, dimensions: json_value(raw)
        case Scalar(kind="timestamp"):
            return lambda raw, dimensions: raw.ToDatetime(tzinfo=UTC)
        case Scalar():
            return None
        case EnumType():
            return _enum(node, node.type)
        case TensorType():
            return _tensor(node, node.type)
        case MediaType():
            return lambda raw, dimensions: node.python(raw.data, raw.type)
        case Record():
            return _record(node)
        case ListType():
            return _list(node)
        case MapType():
            return _map(node)


def _enum(node: Node, type_: EnumType) -> Decode:
    members = list(type_.members if node.python is None else node.python)
    return lambda number, dimensions: members[number - 1]


def _tensor(node: Node, type_: TensorType) -> Decode:
    names = [
        (place, one)
        for place, one in enumerate(type_.shape or ())
        if isinstance(one, str) and one != ANY_LENGTH
    ]
    make = _torch if node.python == "torch" else _numpy

    def of(raw: Any, dimensions: Dimensions) -> Any:
        shape = tuple(raw.shape)
        for place, name in names:
            dimensions[name] = shape[place]
        return make(raw.dtype, shape, raw.data)

    return of


def _numpy(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    """An array of its own memory, so that it may be written to."""
    if not data:
        import numpy

        return numpy.empty(shape, "uint16" if dtype == "bfloat16" else dtype)
    return as_numpy(Tensor(dtype, shape, bytearray(data)))  # type: ignore[arg-type]


def _torch(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    torch = importlib.import_module("torch")
    kind = getattr(torch, dtype)
    if not data:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)


def _record(node: Node) -> Decode:
    decode = fields_decoder(node.slots)
    validate = getattr(node.python, "model_validate", None)

    def of(raw: Any, dimensions: Dimensions) -> Any:
        given = decode(raw, dimensions)
        try:
            return node.python(**given) if validate is None else validate(given)
        except ValueError as error:  # Its own checks: pydantic's ValidationError is one, too.
            raise _refused(error) from None

    return of


def _refused(error: ValueError) -> InvalidRequest:
    """What a record's own checks say, with the path that pydantic gives."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return InvalidRequest(str(error))
    first = errors(include_url=False, include_input=False, include_context=False)[0]
    return InvalidRequest(first["msg"], field=".".join(map(str, first["loc"])))


def _list(node: Node) -> Decode:
    assert node.item is not None
    make = node.python
    decode = _item(node.item)
    if decode is None:
        return lambda raw, dimensions: make(raw)

    def of(raw: Any, dimensions: Dimensions) -> Any:
        return make(
            [_located(decode, one, dimensions, f"[{place}]") for place, one in enumerate(raw)]
        )

    return of


def _map(node: Node) -> Decode:
    assert node.item is not None
    decode = _item(node.item)
    if decode is None:
        return lambda raw, dimensions: dict(raw)

    def of(raw: Any, dimensions: Dimensions) -> dict[str, Any]:
        return {key: _located(decode, raw[key], dimensions, f"[{key[:64]!r}]") for key in raw}

    return of


def _item(node: Node) -> Decode | None:
    """Of a value in a list or map: another list or map is in a message with a field `values`."""
    decode = decoder(node)
    if not isinstance(node.type, ListType | MapType):
        return decode
    assert decode is not None
    return lambda raw, dimensions: decode(raw.values, dimensions)


def json_value(value: Any) -> Any:
    """Of a google.protobuf.Value; a whole number is an int, as JSON's text would have it."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _WHOLE else number
    if kind == "struct_value":
        return {key: json_value(one) for key, one in value.struct_value.fields.items()}
    if kind == "list_value":
        return [json_value(one) for one in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)
