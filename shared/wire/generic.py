"""The codec that a dataclass's fields and annotations give: to an array's values and back, checked.

Annotations are read as text, so the modules of the frames have `from __future__ import
annotations`. An annotation that is not known here stops the import, not a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, TypeAlias

Values: TypeAlias = Callable[[Any], tuple[Any, ...]]
"""Turns a dataclass into the tuple of its fields."""
Check: TypeAlias = Callable[[Any], Any]
"""Returns a field's value as the dataclass has it, or raises `WireError`."""


class WireError(ValueError):
    """Bytes that are not a frame this version reads."""


def values(cls: type[Any]) -> Values:
    """Build what turns a dataclass into the tuple of its fields."""
    names = [field.name for field in fields(cls)]
    if len(names) == 1:
        only = names[0]
        return lambda frame: (getattr(frame, only),)
    return attrgetter(*names)


def decoder(cls: type[Any], nested: Mapping[str, Check]) -> Callable[[tuple[Any, ...], int], Any]:
    """Build what turns an array, from an offset on, into `cls`, checking every field's type.

    Args:
        cls: The dataclass.
        nested: The checks of the dataclasses that its fields hold, by name.

    Raises:
        TypeError: A field has an annotation for which there is no check.
    """
    checks = tuple(_check_of(str(field.type), nested) for field in fields(cls))
    required = sum(1 for field in fields(cls) if field.default is MISSING)
    label = cls.__name__

    def build(array: tuple[Any, ...], offset: int) -> Any:
        if len(array) - offset < required:
            raise WireError(f"{label}: {len(array) - offset} fields, want {required}")
        try:
            # Not strict: fields of a newer version are ignored, missing ones take their default.
            values = [of(value) for of, value in zip(checks, array[offset:], strict=False)]
        except WireError as error:
            raise WireError(f"{label}: {error}") from None
        return cls(*values)

    return build


def check(cls: type[Any]) -> Check:
    """Build the check of a dataclass that a frame's field holds; it holds none itself."""
    build = decoder(cls, {})
    return lambda value: build(_tuple(value), 0)


def _check_of(annotation: str, nested: Mapping[str, Check]) -> Check:
    """A field's annotation as a function that returns the value or raises `WireError`."""
    if annotation.endswith(" | None"):
        inner = _check_of(annotation.removesuffix(" | None"), nested)
        return lambda value: None if value is None else inner(value)
    if annotation.startswith("tuple[") and annotation.endswith(", ...]"):
        return _each(_check_of(annotation.removeprefix("tuple[").removesuffix(", ...]"), nested))
    if annotation in nested:
        return nested[annotation]
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation == "Any":
        return lambda value: value
    if annotation == "tuple[int, tuple[int, ...]]":
        return _pair(_integer, _each(_integer))
    if annotation == "tuple[str, str]":
        return _pair(_string, _string)
    raise TypeError(f"the wire has no check for {annotation}")


def _each(check: Check) -> Check:
    def of(value: Any) -> tuple[Any, ...]:
        return tuple([check(one) for one in _tuple(value)])

    return of


def _pair(first: Check, second: Check) -> Check:
    def of(value: Any) -> tuple[Any, Any]:
        if len(_tuple(value)) != 2:
            raise WireError(f"want a pair, got {value!r}")
        return (first(value[0]), second(value[1]))

    return of


def _exactly(kind: type[Any], name: str) -> Check:
    def of(value: Any) -> Any:
        if type(value) is not kind:
            raise WireError(f"want {name}, got {type(value).__name__}")
        return value

    return of


_tuple = _exactly(tuple, "an array")
_integer = _exactly(int, "an integer")
_string = _exactly(str, "a string")


def _real(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise WireError(f"want a number, got {type(value).__name__}")
    return float(value)


_SCALARS: dict[str, Check] = {
    "int": _integer, "str": _string, "bytes": _exactly(bytes, "bytes"), "float": _real,
    "bool": _exactly(bool, "a boolean"),
}  # fmt: skip
