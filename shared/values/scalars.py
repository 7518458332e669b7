"""Single values between plain Python and protobuf: numbers, text, bytes, enum names, times."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from shared.errors import InvalidRequest

Convert: TypeAlias = Callable[[Any, str], Any]
"""From a value and its path; raises InvalidRequest."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNSPECIFIED = "UNSPECIFIED"
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The numbers that JSON has not, by the names that protobuf's JSON gives them."""

_F = FieldDescriptor
_RANGES = dict.fromkeys((_F.CPPTYPE_INT64,), (-(1 << 63), (1 << 63) - 1))
_RANGES |= {_F.CPPTYPE_UINT64: (0, (1 << 64) - 1), _F.CPPTYPE_UINT32: (0, (1 << 32) - 1)}
_RANGES |= {_F.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1)}


def refusal(value: Any, path: str, want: str) -> InvalidRequest:
    """An error for a value of a wrong type."""
    where = path or "the value"
    return InvalidRequest(f"{where} is {type(value).__name__}: want {want}", field=path)


@lru_cache(maxsize=1024)
def converter(field: FieldDescriptor, *, json: bool) -> Convert:
    """What converts plain Python, or JSON, to a value that the field takes."""
    if field.enum_type is not None:
        return _enum(field.enum_type)
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return from_base64 if json else _bytes
        return text
    if kind == field.CPPTYPE_BOOL:
        return _bool
    if kind in _RANGES:
        return _integer(*_RANGES[kind])
    return _json_number if json else _number


def members(enum: EnumDescriptor) -> dict[int, str]:
    """The members' names by number, without the enum's name that protobuf has in front of each."""
    zero = enum.values_by_number.get(0)
    prefix = "" if zero is None else zero.name.removesuffix(UNSPECIFIED)
    return {value.number: value.name.removeprefix(prefix) for value in enum.values}


def plain(value: Any) -> Any:
    """A number instead of an array of no dimensions, or of a library's own number."""
    if getattr(value, "ndim", 1) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def text(value: Any, path: str) -> str:
    """Text that UTF-8 can hold."""
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise refusal(value, path, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{path or 'the value'} holds half of a surrogate pair, which is no text", field=path
        ) from None
    return value


def from_base64(value: Any, path: str) -> bytes:
    """The bytes that base64 text stands for; bytes, which JSON has not, are themselves."""
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest(f"{path or 'the value'} is no base64: want bytes so encoded", field=path)


def to_datetime(timestamp: Any) -> datetime:
    """Of a google.protobuf.Timestamp; what is finer than microseconds is cut off."""
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def set_timestamp(timestamp: Any, value: Any, path: str) -> None:
    """Set a google.protobuf.Timestamp; a time without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRequest(
                f"{path or 'the value'} is no time: want one like 2026-01-31T12:00:00Z", field=path
            ) from None
    if not isinstance(value, datetime):
        raise refusal(value, path, "a time")
    since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH
    timestamp.seconds = since.days * 86400 + since.seconds
    timestamp.nanos = since.microseconds * 1000


def rfc3339(value: datetime) -> str:
    """A time as JSON has it; one without a zone is UTC."""
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")


def keys(mapping: Mapping[Any, Any], path: str) -> Mapping[str, Any]:
    """The mapping, where its keys are text."""
    for key in mapping:
        if type(key) is not str:
            text(key, path)
    return mapping


def _bool(value: Any, path: str) -> bool:
    value = plain(value)
    if not isinstance(value, bool):
        raise refusal(value, path, "true or false")
    return value


def _bytes(value: Any, path: str) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise refusal(value, path, "bytes")
    return bytes(value)


def _integer(least: int, most: int) -> Convert:
    def of(value: Any, path: str) -> int:
        value = plain(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise refusal(value, path, "a whole number")
        if not least <= value <= most:
            raise InvalidRequest(
                f"{path or 'the value'} is too large: want {least} to {most}", field=path
            )
        return value

    return of


def _number(value: Any, path: str) -> float:
    value = plain(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refusal(value, path, "a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(f"{path or 'the value'} is too large", field=path) from None


def _json_number(value: Any, path: str) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    return _number(value, path)


def _enum(enum: EnumDescriptor) -> Convert:
    by_number = {number: name for number, name in members(enum).items() if name != UNSPECIFIED}
    by_name = {name: number for number, name in by_number.items()}
    by_name |= {value.name: value.number for value in enum.values if value.number in by_number}
    want = f"one of {', '.join(list(by_number.values())[:20])}"

    def of(value: Any, path: str) -> int:
        if isinstance(value, Enum):
            value = value.name
        if isinstance(value, str) and value in by_name:
            return by_name[value]
        if type(value) is int and value in by_number:
            return value
        if isinstance(value, str | int):
            where = path or "the value"
            raise InvalidRequest(f"{where} is {str(value)[:64]!r}: want {want}", field=path)
        raise refusal(value, path, want)

    return of
