"""Signatures, and values that they allow, drawn at random or made short."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
    Signature,
    TensorType,
    Type,
)
from shared.values import Media, Tensor
from shared.values.tensors import ITEMSIZES

STRING, INT, DOUBLE, BOOL = Scalar("string"), Scalar("int64"), Scalar("double"), Scalar("bool")
BYTES, TIME, JSON = Scalar("bytes"), Scalar("timestamp"), Scalar("json")
COLOR = EnumType("Color", ("RED", "GREEN"))


def record(name: str, /, **types: Type) -> Record:
    return Record(
        name,
        tuple(Field(one, number, type_) for number, (one, type_) in enumerate(types.items(), 1)),
    )


def signature(
    output: Type | None = STRING, /, *, streaming: bool = False, **types: Type
) -> Signature:
    return Signature("echo", "1", record("Inputs", **types), output, streaming)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
TYPE_NAMES = st.sampled_from(["Point", "Request", "PointList", "Map", "Int64List", "Response"])
FIELD_NAMES = st.sampled_from(["a", "b_c", "values", "name", "X", "x", "class_", "_a", "index"])
SCALARS = st.sampled_from([STRING, INT, DOUBLE, BOOL, BYTES, TIME, JSON])
ENUMS = st.builds(
    EnumType,
    TYPE_NAMES,
    st.lists(st.sampled_from(["RED", "green", "Blue", "A_B", "x1"]), min_size=1, unique=True).map(
        tuple
    ),
)
TENSORS = st.builds(
    TensorType,
    st.sampled_from(["", *ITEMSIZES]),
    st.none() | st.lists(st.sampled_from(["_", 0, 1, 3]), max_size=3).map(tuple),
)
MEDIA = st.sampled_from([MediaType("image"), MediaType("audio"), MediaType("video")])
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def records(draw: st.DrawFn, inner: st.SearchStrategy[Type]) -> Record:
    names = draw(st.lists(FIELD_NAMES, max_size=4, unique_by=lambda n: n.replace("_", "").lower()))
    numbers = draw(
        st.lists(st.integers(1, 40), min_size=len(names), max_size=len(names), unique=True)
    )
    fields = [
        Field(name, number, draw(inner), draw(st.booleans()))
        for name, number in zip(names, numbers, strict=True)
    ]
    return Record(draw(TYPE_NAMES), tuple(fields))


TYPES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | ENUMS | TENSORS | MEDIA,
    lambda inner: st.builds(ListType, inner) | st.builds(MapType, inner) | records(inner),
    max_leaves=6,
)
SIGNATURES = st.builds(
    Signature,
    st.sampled_from(["echo", "my-model", "a_b"]),
    st.sampled_from(["1", "2.0", "beta_3"]),
    records(TYPES),
    st.none() | TYPES,
    st.booleans(),
    st.booleans(),
    st.text(max_size=20),
)


def values(type_: Type) -> st.SearchStrategy[Any]:
    """Plain Python that the type allows."""
    match type_:
        case Scalar(kind=kind):
            return _SCALAR_VALUES[kind]
        case EnumType():
            return st.sampled_from(type_.members)
        case TensorType():
            return tensors(type_)
        case MediaType():
            return st.builds(Media, st.just(f"{type_.kind}/x"), st.binary(max_size=4))
        case ListType():
            return st.lists(values(type_.item), max_size=3)
        case MapType():
            return st.dictionaries(st.text(max_size=4), values(type_.value), max_size=3)
        case Record():
            return inputs(type_)


@st.composite
def inputs(draw: st.DrawFn, record: Record) -> dict[str, Any]:
    given = {}
    for field in record.fields:
        if isinstance(field.type, ListType | MapType) or field.required or draw(st.booleans()):
            given[field.name] = draw(values(field.type))
    return given


@st.composite
def tensors(draw: st.DrawFn, type_: TensorType) -> Tensor:
    dtype = type_.dtype or draw(st.sampled_from(list(ITEMSIZES)))
    wanted = type_.shape if type_.shape is not None else ("_",) * draw(st.integers(0, 2))
    shape = tuple(draw(st.integers(0, 3)) if isinstance(one, str) else one for one in wanted)
    size = ITEMSIZES[dtype]
    for length in shape:
        size *= length
    return Tensor(dtype, shape, b"\1" * size)


_SCALAR_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=8),
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=8),
    "timestamp": st.datetimes(
        datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)
    ),
    "json": JSONS,
}
