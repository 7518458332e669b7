"""Single values, and JSON, from what a function gives; the wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeAlias

from shared.values.fill import DEEPEST_JSON
from workers.app.failures import ContractError

Dimensions: TypeAlias = dict[str, int]
Encode: TypeAlias = Callable[[Any, Dimensions], Any]
"""A value as protobuf wants it, given the lengths of named dimensions so far."""

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


class Wrong(Exception):
    """Why a value is refused; its path is added on the way up, innermost part first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[str] = []

    def within(self, part: str) -> Wrong:
        """The same, seen from outside."""
        self.path.append(part)
        return self

    def contract(self) -> ContractError:
        """For log and client."""
        return ContractError(f"{''.join(reversed(self.path))}: {self}")


def want(what: str, value: Any) -> Wrong:
    """The refusal of a value of another type."""
    return Wrong(f"want {what}, got {type(value).__name__}")


def text(value: Any, dimensions: Dimensions) -> str:
    """Encode text."""
    if not isinstance(value, str):
        raise want("str", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Wrong("the text has lone surrogates, which UTF-8 has not") from None
    return value


def _int(value: Any, dimensions: Dimensions) -> int:
    if type(value) is not int:
        if type(value) is bool or not isinstance(value, Integral):
            raise want("int", value)
        value = int(value)
    if not _LOWEST <= value <= _HIGHEST:
        raise Wrong("the number does not fit into 64 bits")
    return int(value)


def _float(value: Any, dimensions: Dimensions) -> float:
    if type(value) is float:
        return value
    if type(value) is bool or not isinstance(value, Real):
        raise want("float", value)
    return float(value)


def _bool(value: Any, dimensions: Dimensions) -> bool:
    if type(value) is bool:
        return value
    if type(value).__name__ not in ("bool", "bool_"):  # numpy's has no other mark.
        raise want("bool", value)
    return bool(value)


def _bytes(value: Any, dimensions: Dimensions) -> bytes:
    if type(value) is bytes:
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        raise want("bytes", value)
    return bytes(value)


SCALARS: Mapping[str, Encode] = {
    "string": text, "int64": _int, "double": _float, "bool": _bool, "bytes": _bytes,
}  # fmt: skip


def json_encoder(cls: Any) -> Encode:
    """What encodes JSON; `cls` is google.protobuf.Value, in the pool of the function."""

    def of(value: Any, dimensions: Dimensions) -> Any:
        made = cls()
        _fill(made, value, 0)
        return made

    return of


def _fill(made: Any, value: Any, depth: int) -> None:
    """Put JSON into a google.protobuf.Value."""
    if depth > DEEPEST_JSON:
        raise Wrong(f"it is nested more than {DEEPEST_JSON} deep")
    if value is None:
        made.null_value = 0
    elif isinstance(value, str):
        made.string_value = text(value, {})
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, Real):
        made.number_value = float(value)
    elif isinstance(value, Mapping):
        made.struct_value.SetInParent()
        for key, one in value.items():
            _fill(made.struct_value.fields[text(key, {})], one, depth + 1)
    elif isinstance(value, list | tuple):
        made.list_value.SetInParent()
        for one in value:
            _fill(made.list_value.values.add(), one, depth + 1)
    else:
        raise want("what JSON has", value)
