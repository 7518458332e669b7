"""From messages, which the gateway has checked, to what a function is called with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, TypeAlias

from shared.errors import InvalidRequest
from shared.signature import EnumType, ListType, MapType, MediaType, Record, Scalar, TensorType
from shared.values.tensors import Tensor, as_numpy
from workers.app.failures import FIELD_MOST, MESSAGE_MOST
from workers.app.markers import ANY_LENGTH
from workers.app.nodes import Node, Slot

Dimensions: TypeAlias = dict[str, int]
Decode: TypeAlias = Callable[[Any, Dimensions], Any]
"""A value as Python has it; the lengths of named dimensions are noted."""

MOST_TOLD = 10
"""Wrong values that one error tells of."""

_WHOLE = 1 << 53


class Refused(Exception):
    """What a record's own checks say; paths grow on the way up.

    Args:
        wrong: The path of each wrong value, `.name[0]`, and what is wrong with it.
    """

    def __init__(self, wrong: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._wrong = wrong

    def within(self, part: str) -> Refused:
        """The same, seen from outside."""
        self._wrong = [(part + path, why) for path, why in self._wrong]
        return self

    def invalid(self) -> InvalidRequest:
        """For the client: all that is wrong, where its field is the first's."""
        wrong = [(path.removeprefix("."), why) for path, why in self._wrong]
        told = [f"{path}: {why}" for path, why in wrong[:MOST_TOLD]]
        if len(wrong) > MOST_TOLD:
            told.append(f"and {len(wrong) - MOST_TOLD} more")
        return InvalidRequest("; ".join(told)[:MESSAGE_MOST], field=wrong[0][0][:FIELD_MOST])


def fields_decoder(slots: tuple[Slot, ...]) -> Callable[[Any, Dimensions], dict[str, Any]]:
    """What decodes a message's fields; what is not given is left out, or None where it may be.

    A list or dict that is empty was not given: protobuf has no difference. What decodes raises
    Refused where a record's own checks do.
    """
    many = (ListType, MapType)
    parts = [
        (slot.field.name, f".{slot.field.name}", slot, isinstance(slot.field.type, many),
         decoder(slot.node))
        for slot in slots
    ]  # fmt: skip

    def of(message: Any, dimensions: Dimensions) -> dict[str, Any]:
        given: dict[str, Any] = {}
        has = message.HasField
        for name, path, slot, is_many, decode in parts:
            raw = getattr(message, name) if is_many or has(name) else None
            if is_many and not raw and not slot.field.required:
                raw = None
            if raw is None:
                if slot.none:
                    given[slot.key] = None
            elif decode is None:
                given[slot.key] = raw
            else:
                given[slot.key] = _located(decode, raw, dimensions, path)
        return given

    return of


def _located(decode: Decode, raw: Any, dimensions: Dimensions, part: str) -> Any:
    """Decode; a refusal by a record's own checks gets its path."""
    try:
        return decode(raw, dimensions)
    except Refused as refused:
        raise refused.within(part) from None


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
        except (ValueError, InvalidRequest) as error:  # Its own checks, and pydantic's.
            raise _refused(error) from None

    return of


def _refused(error: ValueError | InvalidRequest) -> Refused:
    """What a record's own checks say, with the paths that pydantic gives."""
    if isinstance(error, InvalidRequest):
        return Refused([(f".{error.field}" if error.field else "", error.message)])
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return Refused([("", str(error) or type(error).__name__)])
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    return Refused([("".join(map(_part, one["loc"])), one["msg"]) for one in errors])


def _part(one: str | int) -> str:
    """A step of a path."""
    return f".{one[:64]}" if isinstance(one, str) else f"[{one}]"


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
