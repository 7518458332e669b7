"""Python values as `shared.values` takes them, and as a client gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from types import NoneType
from typing import Any

from shared.values import Media, Tensor, as_numpy

ATOMS = frozenset({str, bytes, int, float, bool, NoneType})
KINDS = ("image", "audio", "video")


def plain(value: Any) -> Any:
    """Pydantic models as mappings, and an app's `Image`, `Audio` and `Video` as media."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, list | tuple):
        return value if all(type(one) in ATOMS for one in value) else [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if getattr(kind, "kind", None) in KINDS:  # Their module is the worker's.
        return Media(value.type, value.data)
    if is_dataclass(value) and not isinstance(value, type | Tensor | Media):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    described = getattr(kind, "model_fields", None)  # pydantic's.
    if isinstance(described, Mapping):
        return {name: plain(getattr(value, name)) for name in described}
    return value


def arrays(value: Any) -> Any:
    """Tensors as numpy arrays, where it is installed; media and the rest as they are."""
    if isinstance(value, Tensor):
        to_array = _to_array()
        return value if to_array is None else to_array(value)
    if isinstance(value, dict):
        return {name: arrays(one) for name, one in value.items()}
    if isinstance(value, list):
        return [arrays(one) for one in value]
    return value


@cache
def _to_array() -> Callable[[Tensor], Any] | None:
    return as_numpy if find_spec("numpy") else None
