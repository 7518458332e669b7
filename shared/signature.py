"""What a function takes and gives: the one description that worker, gateway and client share. Pure.

A worker makes it from annotations (`workers.app.annotations`) and announces it; `shared.typed`
turns it into protobuf descriptors, from which the gateway serves typed methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

ScalarKind = Literal["string", "int64", "double", "bool", "bytes", "timestamp", "json"]
MediaKind = Literal["image", "audio", "video"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value; `timestamp` is google.protobuf.Timestamp, `json` google.protobuf.Value."""

    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class EnumType:
    """One of a few names.

    Attributes:
        name: The type's.
        members: The names, in the order of their numbers, which count from 1.
    """

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """An array of numbers.

    Attributes:
        dtype: As `millstream.v1.Tensor` names it; "" is any.
        shape: Each dimension's length, or its name where it is free; equal names are equal lengths.
            None is any shape.
    """

    dtype: str = ""
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class MediaType:
    """Bytes with a media type, which begins with the kind."""

    kind: MediaKind


@dataclass(frozen=True, slots=True)
class ListType:
    """Values of one type in order."""

    item: Type


@dataclass(frozen=True, slots=True)
class MapType:
    """Values of one type by name."""

    value: Type


@dataclass(frozen=True, slots=True)
class Field:
    """A named value.

    Attributes:
        name: The parameter's or attribute's name.
        number: The protobuf field number, from 1.
        type: What it is.
        required: Whether it must be given; what may be left out is filled in by the function.
        default: What it then is, as JSON, for documentation: None too where it cannot be told.
    """

    name: str
    number: int
    type: Type
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True)
class Record:
    """Named values: a dataclass, a pydantic model, or a function's parameters."""

    name: str
    fields: tuple[Field, ...]


Type: TypeAlias = Scalar | EnumType | TensorType | MediaType | ListType | MapType | Record


@dataclass(frozen=True, slots=True)
class Signature:
    """A function.

    Attributes:
        name: Its name, `[A-Za-z][A-Za-z0-9_-]{0,63}`.
        version: Its version, `[A-Za-z0-9][A-Za-z0-9._]{0,31}`.
        inputs: Its parameters.
        output: What it returns, or yields where it streams; None for nothing.
        streaming: Whether it yields items.
        default: Whether its version is the one that is meant where none is named.
        summary: The first line of its docstring.
    """

    name: str
    version: str
    inputs: Record
    output: Type | None
    streaming: bool = False
    default: bool = False
    summary: str = ""

    @property
    def served_name(self) -> str:
        """The name its queue has, and metrics and logs: `name@version`."""
        return f"{self.name}@{self.version}"
