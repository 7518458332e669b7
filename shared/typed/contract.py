"""Checks what descriptors cannot say: required fields, tensors, enums, media, times.

A type becomes a closure, once; a type with nothing to check becomes None, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from shared.errors import InvalidRequest
from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
    TensorType,
    Type,
)
from shared.values.tensors import fault

ANY_LENGTH = "_"
"""The dimension that may differ everywhere."""

_EARLIEST, _LATEST = -62135596800, 253402300799
"""Seconds of the years 1 and 9999."""

_Dimensions: TypeAlias = dict[str, int]
_Check: TypeAlias = Callable[[Any, _Dimensions], None]


def checker(fields: Iterable[Field]) -> Callable[[Any], None]:
    """What checks a message of these fields, and raises InvalidRequest with the path of a fault."""
    check = _fields(tuple(fields))
    if check is None:
        return lambda message: None

    def of(message: Any) -> None:
        try:
            check(message, {})
        except _Wrong as wrong:
            path = "".join(reversed(wrong.path)).removeprefix(".")
            raise InvalidRequest(f"{path} {wrong}", field=path) from None

    return of


class _Wrong(Exception):
    """Why a value is refused; its path is added on the way up, innermost part first."""

    def __init__(self, why: str, *path: str) -> None:
        super().__init__(why)
        self.path = list(path)


def _check(type_: Type) -> _Check | None:
    match type_:
        case Scalar(kind="timestamp"):
            return _timestamp
        case Scalar():
            return None
        case EnumType():
            return _enum(type_)
        case TensorType():
            return _tensor(type_)
        case MediaType():
            return _media(type_)
        case ListType() | MapType():
            return _wrapped(_several(type_))
        case Record():
            return _fields(type_.fields)


def _fields(fields: tuple[Field, ...]) -> _Check | None:
    """A message's fields: those required are there, and each is as its type wants it."""
    many = [
        (field.name, check)
        for field in fields
        if isinstance(field.type, ListType | MapType) and (check := _several(field.type))
    ]
    alone = [field for field in fields if not isinstance(field.type, ListType | MapType)]
    required = [field.name for field in alone if field.required]
    single = [
        (field.name, field.required, check) for field in alone if (check := _check(field.type))
    ]
    if not required and not single and not many:
        return None

    def of(message: Any, dimensions: _Dimensions) -> None:
        has = message.HasField
        for name in required:
            if not has(name):
                raise _Wrong("is missing: it has no default", f".{name}")
        name = ""
        try:
            for name, there, check in single:
                if there or has(name):
                    check(getattr(message, name), dimensions)
            for name, check in many:
                check(getattr(message, name), dimensions)
        except _Wrong as wrong:
            wrong.path.append(f".{name}")
            raise

    return of


def _several(type_: ListType | MapType) -> _Check | None:
    return _list(type_) if isinstance(type_, ListType) else _map(type_)


def _list(type_: ListType) -> _Check | None:
    item = type_.item
    if isinstance(item, EnumType):
        return _enums(item)
    check = _check(item)
    if check is None:
        return None

    def of(values: Any, dimensions: _Dimensions) -> None:
        done = 0
        try:
            for value in values:
                check(value, dimensions)
                done += 1
        except _Wrong as wrong:
            wrong.path.append(f"[{done}]")
            raise

    return of


def _map(type_: MapType) -> _Check | None:
    check = _check(type_.value)
    if check is None:
        return None

    def of(values: Any, dimensions: _Dimensions) -> None:
        key = ""
        try:
            for key in values:
                check(values[key], dimensions)
        except _Wrong as wrong:
            wrong.path.append(f'["{key[:64]}"]')
            raise

    return of


def _wrapped(check: _Check | None) -> _Check | None:
    """For a list or map in another, which a message stands for."""
    if check is None:
        return None
    return lambda wrapper, dimensions: check(wrapper.values, dimensions)


def _enum(type_: EnumType) -> _Check:
    last = len(type_.members)

    def of(number: int, dimensions: _Dimensions) -> None:
        del dimensions
        if not 1 <= number <= last:
            raise _Wrong(f"has no value of number {number}: want {_choice(type_)}")

    return of


def _enums(type_: EnumType) -> _Check:
    known = frozenset(range(1, len(type_.members) + 1))
    check = _enum(type_)

    def of(numbers: Any, dimensions: _Dimensions) -> None:
        if not known.issuperset(numbers):
            for index, number in enumerate(numbers):
                try:
                    check(number, dimensions)
                except _Wrong as wrong:
                    wrong.path.append(f"[{index}]")
                    raise

    return of


def _choice(type_: EnumType) -> str:
    names = [f"{number} ({name})" for number, name in enumerate(type_.members[:20], 1)]
    return ", ".join(names) + (", ..." if len(type_.members) > 20 else "")


def _media(type_: MediaType) -> _Check:
    prefix = f"{type_.kind}/"

    def of(media: Any, dimensions: _Dimensions) -> None:
        del dimensions
        if not media.type.startswith(prefix):
            raise _Wrong(f"is {media.type[:64]!r}: want {prefix}...", ".type")

    return of


def _timestamp(time: Any, dimensions: _Dimensions) -> None:
    del dimensions
    if not (_EARLIEST <= time.seconds <= _LATEST and 0 <= time.nanos < 1_000_000_000):
        raise _Wrong("is no time: want one from year 1 to 9999, and nanos from 0 to 999999999")


def _tensor(type_: TensorType) -> _Check:
    dtype, wanted = type_.dtype, type_.shape
    described = "" if wanted is None else f"[{', '.join(map(str, wanted))}]"

    def of(tensor: Any, dimensions: _Dimensions) -> None:
        given, shape = tensor.dtype, tensor.shape[:]
        if dtype and given != dtype:
            raise _Wrong(f"is {given[:32]!r}: want {dtype}", ".dtype")
        part, why = fault(given, shape, tensor.data)
        if part:
            raise _Wrong(why, f".{part}")
        if wanted is None:
            return
        if len(shape) != len(wanted):
            raise _Wrong(f"is {shape}: want {described}", ".shape")
        for length, want in zip(shape, wanted, strict=True):
            if type(want) is int:
                if length != want:
                    raise _Wrong(f"is {shape}: want {described}", ".shape")
            elif want != ANY_LENGTH and dimensions.setdefault(str(want), length) != length:
                raise _Wrong(
                    f"is {shape}: want {described}, and {want} is {dimensions[str(want)]} "
                    "elsewhere in the request",
                    ".shape",
                )

    return of
