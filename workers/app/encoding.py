"""From what a function gives to messages; what its annotations do not promise is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import message_factory

from shared.errors import InvalidRequest
from shared.signature import EnumType, ListType, MapType, MediaType, Record, Scalar, TensorType
from shared.values.tensors import tensor
from workers.app.markers import ANY_LENGTH
from workers.app.nodes import Node
from workers.app.scalars import SCALARS, Dimensions, Encode, Wrong, json_encoder, text, want


def encoder(node: Node, field: Any) -> Encode:
    """What encodes values of a type.

    Args:
        node: The type.
        field: The descriptor of the field that takes them.
    """
    match node.type:
        case Scalar(kind="json"):
            return json_encoder(_class(field))
        case Scalar(kind="timestamp"):
            return _timestamp(_class(field))
        case Scalar():
            return SCALARS[node.type.kind]
        case EnumType():
            return _enum(node, node.type)
        case TensorType():
            return _tensor(node.type, _class(field))
        case MediaType():
            return _media(node, _class(field))
        case Record():
            return _record(node, _class(field))
        case ListType() | MapType():
            return _wrapped(node, _class(field))


def field_encoder(node: Node, field: Any) -> Encode:
    """As `encoder`, for a field of its own, which is repeated or a map where the type is."""
    if isinstance(node.type, ListType):
        return _list(node, field)
    return _map(node, field) if isinstance(node.type, MapType) else encoder(node, field)


def _class(field: Any) -> Any:
    return message_factory.GetMessageClass(field.message_type)


def _timestamp(cls: Any) -> Encode:
    def of(value: Any, dimensions: Dimensions) -> Any:
        if not isinstance(value, datetime):
            raise want("datetime", value)
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        made = cls()
        made.FromDatetime(aware)
        return made

    return of


def _enum(node: Node, type_: EnumType) -> Encode:
    numbers = {name: number for number, name in enumerate(type_.members, 1)}
    if node.python is None:

        def of_text(value: Any, dimensions: Dimensions) -> int:
            if not isinstance(value, str):
                raise want("str", value)
            if value not in numbers:
                raise Wrong(f"want one of {', '.join(type_.members[:20])}")
            return numbers[value]

        return of_text

    def of(value: Any, dimensions: Dimensions) -> int:
        if not isinstance(value, node.python):
            raise want(node.python.__name__, value)
        return numbers[value.name]

    return of


def _tensor(type_: TensorType, cls: Any) -> Encode:
    dtype, wanted = type_.dtype, type_.shape
    described = "" if wanted is None else f"[{', '.join(map(str, wanted))}]"

    def of(value: Any, dimensions: Dimensions) -> Any:
        try:
            array = tensor(value)
        except InvalidRequest:
            raise want("an array", value) from None
        same = array.dtype == dtype or (dtype, array.dtype) == ("bfloat16", "uint16")
        if dtype and not same:
            raise Wrong(f"want {dtype}, got {array.dtype}")
        if wanted is not None and not _fits(array.shape, wanted, dimensions):
            raise Wrong(f"want the shape {described}, got {list(array.shape)}{_known(dimensions)}")
        return cls(dtype=dtype or array.dtype, shape=array.shape, data=array.data)

    return of


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...], dimensions: Dimensions) -> bool:
    if len(shape) != len(wanted):
        return False
    for length, wish in zip(shape, wanted, strict=True):
        if isinstance(wish, int):
            if length != wish:
                return False
        elif wish != ANY_LENGTH and dimensions.setdefault(wish, length) != length:
            return False
    return True


def _known(dimensions: Dimensions) -> str:
    known = ", ".join(f"{name} is {length}" for name, length in dimensions.items())
    return f" where {known}" if known else ""


def _media(node: Node, cls: Any) -> Encode:
    def of(value: Any, dimensions: Dimensions) -> Any:
        if not isinstance(value, node.python):
            raise want(node.python.__name__, value)
        return cls(type=value.type, data=bytes(value.data))

    return of


def _record(node: Node, cls: Any) -> Encode:
    fields = cls.DESCRIPTOR.fields_by_name
    parts = [
        (slot.field.name, slot, field_encoder(slot.node, fields[slot.field.name]))
        for slot in node.slots
    ]

    def of(value: Any, dimensions: Dimensions) -> Any:
        if not isinstance(value, node.python):
            raise want(node.python.__name__, value)
        given = {}
        for name, slot, encode in parts:
            try:
                part = getattr(value, name)
                if part is not None or not slot.optional:
                    given[name] = encode(part, dimensions)
            except Wrong as wrong:
                raise wrong.within(f".{name}") from None
        return cls(**given)

    return of


def _list(node: Node, field: Any) -> Encode:
    assert node.item is not None
    encode = encoder(node.item, field)
    kinds = (list, tuple)

    def of(values: Any, dimensions: Dimensions) -> list[Any]:
        if not isinstance(values, kinds):
            raise want(node.python.__name__, values)
        encoded = []
        try:
            for value in values:
                encoded.append(encode(value, dimensions))  # noqa: PERF401  # Its length says where.
        except Wrong as wrong:
            raise wrong.within(f"[{len(encoded)}]") from None
        return encoded

    return of


def _map(node: Node, field: Any) -> Encode:
    assert node.item is not None
    encode = encoder(node.item, field.message_type.fields_by_name["value"])

    def of(values: Any, dimensions: Dimensions) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            raise want("dict", values)
        encoded = {}
        for key, value in values.items():
            try:
                encoded[text(key, dimensions)] = encode(value, dimensions)
            except Wrong as wrong:
                raise wrong.within(f"[{str(key)[:64]!r}]") from None
        return encoded

    return of


def _wrapped(node: Node, cls: Any) -> Encode:
    """A list or map within another: a message with the one field `values`."""
    encode = field_encoder(node, cls.DESCRIPTOR.fields_by_name["values"])
    return lambda values, dimensions: cls(values=encode(values, dimensions))
