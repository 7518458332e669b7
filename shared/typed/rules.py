"""What a signature may be: protobuf's rules are stricter than Python's, and it may be hostile.

It comes over the network: the bounds keep whatever is built from it (descriptors, checks,
`.proto` files) small.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

from google.protobuf.message import Message

from shared.descriptors import entry_name
from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaKind,
    MediaType,
    Record,
    Scalar,
    ScalarKind,
    Signature,
    TensorType,
    Type,
)
from shared.values.tensors import ITEMSIZES, MOST_DIMENSIONS

MOST_BYTES = 128 * 1024
"""Of a signature as JSON."""
MOST_TYPES = 4096
DEEPEST = 10
MOST_FIELDS = 512
MOST_MEMBERS = 1024
LONGEST_SUMMARY = 2000
LONGEST_DIMENSION = 1 << 40
HIGHEST_NUMBER = (1 << 29) - 1
RESERVED_NUMBERS = range(19000, 20000)

SCALARS: tuple[str, ...] = get_args(ScalarKind)
MEDIA: tuple[str, ...] = get_args(MediaKind)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,31}")
_FIELD = re.compile(r"_{0,8}[A-Za-z][A-Za-z0-9_]{0,63}")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_METHODS = frozenset(dir(Message)) | {"Extensions", "FromString", "_extensions_by_name"}


def validate(signature: Signature) -> None:
    """Refuse a signature that cannot be served.

    Raises:
        ValueError: Says what is wrong, and where.
    """
    _match(_NAME, signature.name, "the name")
    _match(_VERSION, signature.version, "the version")
    _refuse(len(signature.summary) > LONGEST_SUMMARY, "the summary is too long")
    room = [MOST_TYPES]
    _record(signature.inputs, "the parameters", 0, room)
    if signature.output is not None:
        _type(signature.output, "the result", 0, room)


def _type(type_: Type, where: str, depth: int, room: list[int]) -> None:
    room[0] -= 1
    _refuse(room[0] < 0, f"there are more than {MOST_TYPES} types in it")
    _refuse(depth > DEEPEST, f"{where} is nested more than {DEEPEST} deep: is its type recursive?")
    match type_:
        case Scalar():
            _refuse(type_.kind not in SCALARS, f"{where} is of no known kind: {type_.kind!r}")
        case MediaType():
            _refuse(type_.kind not in MEDIA, f"{where} is of no known kind: {type_.kind!r}")
        case EnumType():
            _enum(type_, where)
        case TensorType():
            _tensor(type_, where)
        case ListType():
            _type(type_.item, where, depth + 1, room)
        case MapType():
            _type(type_.value, where, depth + 1, room)
        case Record():
            _record(type_, where, depth, room)


def _record(record: Record, where: str, depth: int, room: list[int]) -> None:
    _match(_TYPE, record.name, f"the name of {where}")
    _refuse(len(record.fields) > MOST_FIELDS, f"{where}: more than {MOST_FIELDS} fields")
    for field in record.fields:
        _field(field, f"{where}: field {field.name!r}")
    fields = record.fields
    _unique((f.name for f in fields), f"{where}: field")
    _unique((f.number for f in fields), f"{where}: field number")
    _unique((_json_name(f.name) for f in fields), f"{where}: JSON name of a field")
    maps = (f.name for f in fields if isinstance(f.type, MapType))
    _unique((entry_name(name) for name in maps), f"{where}: map entry's name")
    for field in fields:
        _type(field.type, f"{where}: field {field.name!r}", depth + 1, room)


def _field(field: Field, where: str) -> None:
    _match(_FIELD, field.name, where)
    _refuse(field.name in _METHODS, f"{where}: protobuf messages have a method of that name")
    number = field.number
    _refuse(
        not 1 <= number <= HIGHEST_NUMBER or number in RESERVED_NUMBERS,
        f"{where}: number {number} is not one that protobuf allows",
    )
    _refuse(_depth(field.default, 0) > DEEPEST, f"{where}: its default is nested too deeply")


def _enum(enum: EnumType, where: str) -> None:
    _match(_TYPE, enum.name, f"{where}: the enum's name")
    _refuse(not enum.members, f"{where}: the enum has no members")
    _refuse(len(enum.members) > MOST_MEMBERS, f"{where}: more than {MOST_MEMBERS} members")
    for member in enum.members:
        _match(_FIELD, member, f"{where}: the enum's member")
    names = ("UNSPECIFIED", *enum.members)
    _unique((_pascal(name) for name in names), f"{where}: enum member, as generated code names it")


def _tensor(tensor: TensorType, where: str) -> None:
    _refuse(
        tensor.dtype != "" and tensor.dtype not in ITEMSIZES,
        f"{where}: no dtype {tensor.dtype!r}: want one of {', '.join(ITEMSIZES)}",
    )
    shape = tensor.shape or ()
    _refuse(len(shape) > MOST_DIMENSIONS, f"{where}: more than {MOST_DIMENSIONS} dimensions")
    for dimension in shape:
        if isinstance(dimension, str):
            _match(re.compile(rf"_|{_FIELD.pattern}"), dimension, f"{where}: dimension")
        else:
            _refuse(not 0 <= dimension <= LONGEST_DIMENSION, f"{where}: no dimension {dimension!r}")


def _depth(value: Any, depth: int) -> int:
    """How deep JSON is nested, looked at until it is too deep."""
    if depth > DEEPEST or not isinstance(value, list | tuple | dict):
        return depth
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(item, depth + 1) for item in inner), default=depth)


def _json_name(name: str) -> str:
    """As protoc makes it: no two fields of a message may share one."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _pascal(name: str) -> str:
    """As protoc compares enum values."""
    return "".join(part[:1].upper() + part[1:].lower() for part in name.split("_"))


def _match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{what} is {text!r}: want text")
    if not pattern.fullmatch(text):
        raise ValueError(f"{what} is {text[:80]!r}: want {pattern.pattern}")


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise ValueError(why)


def _unique(values: Iterable[str | int], what: str) -> None:
    seen: set[str | int] = set()
    for value in values:
        _refuse(value in seen, f"{what} {value!r} comes twice")
        seen.add(value)
