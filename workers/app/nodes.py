"""A type on both sides, and what can be read off an annotation without its neighbours."""

from __future__ import annotations

import math
import re
import sys
import types
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

from shared.signature import Field, TensorType, Type
from workers.app.markers import Number, Tensor, TorchTensor


@dataclass(frozen=True, slots=True)
class Node:
    """A type on both sides.

    Attributes:
        type: On the wire.
        python: The class of an enum, a record or of media; "numpy" or "torch"; list or tuple; for
            a Literal, None.
        item: Of a list or map.
        slots: Of a record.
    """

    type: Type
    python: Any = None
    item: Node | None = None
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter or an attribute.

    Attributes:
        field: What it is on the wire.
        node: What it is on both sides.
        key: What its constructor calls it.
        none: Whether None is what the function gets where it is not given.
        optional: Whether it may be None.
    """

    field: Field
    node: Node
    key: str
    none: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Declared:
    """A parameter or an attribute as Python has it.

    Attributes:
        name: Its own.
        annotation: Its type.
        has_default: Whether it may be left out.
        default: What it then is, or None where that cannot be told.
        key: What its constructor calls it.
    """

    name: str
    annotation: Any
    has_default: bool = False
    default: Any = None
    key: str = ""


def documented(default: Any) -> Any:
    """A default as JSON, or None where it cannot be told."""
    if isinstance(default, Enum):
        return default.name
    if isinstance(default, float) and not math.isfinite(default):
        return None
    if isinstance(default, str | bool | int | float):
        return default
    if isinstance(default, list | tuple):
        told = [documented(one) for one in default]
        return None if None in told else told
    return default.isoformat() if isinstance(default, datetime) else None


def plain(name: str) -> str:
    """A class's name as protobuf allows it."""
    return re.sub(r"[^A-Za-z0-9]", "", name).lstrip("0123456789") or "Record"


def bare(annotation: Any) -> tuple[Any, bool, int | None]:
    """Without `| None` and numbers: the type, whether it may be None, the pinned number."""
    optional, number = False, None
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated and not any(isinstance(one, Tensor) for one in arguments[1:]):
            pins = [one.number for one in arguments[1:] if isinstance(one, Number)]
            number = pins[0] if pins else number
            annotation = arguments[0]
        elif origin in (Union, types.UnionType) and type(None) in arguments:
            rest = tuple(one for one in arguments if one is not type(None))
            if len(rest) > 1:
                return annotation, False, number
            optional, annotation = True, rest[0]
        else:
            if origin is Annotated:  # A tensor's, whose number may stand beside its contract.
                pins = [one.number for one in arguments[1:] if isinstance(one, Number)]
                number = pins[0] if pins else number
            return annotation, optional, number


def tensor_node(contract: Tensor) -> Node:
    """Of a contract."""
    return Node(TensorType(contract.dtype, contract.shape), contract.framework)


def array_contract(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Tensor | None:
    """Of numpy.ndarray, NDArray[numpy.float32], torch.Tensor; whoever uses them imported them."""
    numpy: Any = sys.modules.get("numpy")
    torch: Any = sys.modules.get("torch")
    if torch is not None and annotation is getattr(torch, "Tensor", None):
        return TorchTensor()
    if numpy is None or numpy.ndarray not in (annotation, origin):
        return None
    numbers = get_args(arguments[1]) if len(arguments) == 2 else ()
    if not numbers or not isinstance(numbers[0], type) or numbers[0].__subclasses__():
        return Tensor()  # Any, or a family of number types.
    return Tensor(numbers[0])
