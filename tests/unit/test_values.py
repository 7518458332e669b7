from __future__ import annotations

import array
import enum
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.v1 import types_pb2
from shared import values
from shared.errors import InvalidRequest
from shared.signature import ListType, MapType, MediaType, Signature, TensorType
from shared.typed import Typed
from shared.values import Media, Tensor
from tests.unit import typed_cases
from tests.unit.typed_cases import (
    BOOL,
    BYTES,
    COLOR,
    DOUBLE,
    INT,
    JSON,
    SIGNATURES,
    STRING,
    TIME,
    record,
    signature,
)

POINT = record("Point", x=DOUBLE, y=DOUBLE)
REQUEST = Typed(
    signature(
        None,
        text=STRING,
        n=INT,
        f=DOUBLE,
        flag=BOOL,
        data=BYTES,
        at=TIME,
        any=JSON,
        color=COLOR,
        colors=ListType(COLOR),
        point=POINT,
        points=ListType(POINT),
        by=MapType(POINT),
        counts=MapType(INT),
        grid=ListType(ListType(INT)),
        x=TensorType(),
        image=MediaType("image"),
        numbers=ListType(DOUBLE),
    )
).request


class Color(enum.Enum):
    RED = "r"


@dataclass
class Point:
    x: float
    y: float


def message(**given: Any) -> Any:
    return values.to_message(REQUEST, given)


@settings(max_examples=100, deadline=None)
@given(SIGNATURES, st.data())
def test_a_result_comes_back_through_values_without_a_type(
    made: Signature, data: st.DataObject
) -> None:
    built = Typed(made)
    plain = data.draw(typed_cases.inputs(made.inputs))
    whole = values.to_message(built.request, plain)
    untyped = values.to_value(values.from_message(whole)).SerializeToString()
    back = values.from_value(types_pb2.Value.FromString(untyped))
    assert values.to_message(built.request.DESCRIPTOR, back) == whole


@settings(deadline=None)
@given(SIGNATURES, st.data())
def test_json_is_json(made: Signature, data: st.DataObject) -> None:
    built = Typed(made)
    whole = values.to_message(built.request, data.draw(typed_cases.inputs(made.inputs)))
    text = json.dumps(values.to_json(whole), allow_nan=False)
    assert values.from_json(built.request, json.loads(text)) == whole


def test_python_goes_in_and_comes_out() -> None:
    plain = {
        "text": "a",
        "n": -1,
        "f": 1.5,
        "flag": False,
        "data": b"\xff",
        "at": datetime(2026, 1, 31, 12, 0, 0, 5, UTC),
        "any": {"a": [1, 2.5, None, True, "x", {}]},
        "color": "GREEN",
        "colors": ["RED", "GREEN"],
        "point": {"x": 1.0, "y": 2.0},
        "points": [{"x": 1.0}, {}],
        "by": {"a": {"x": 1.0}},
        "counts": {"": 1},
        "grid": [[1, 2], [], [3]],
        "x": Tensor("int8", (2,), b"\1\2"),
        "image": Media("image/png", b"x"),
        "numbers": [1.0, 2.0],
    }
    assert values.from_message(message(**plain)) == plain


def test_what_is_not_set_is_left_out() -> None:
    empty: dict[str, Any] = {
        "colors": [],
        "points": [],
        "by": {},
        "counts": {},
        "grid": [],
        "numbers": [],
    }
    assert values.from_message(message()) == empty
    assert values.from_message(message(text=None, point=None, points=None, by=None)) == empty
    assert values.from_message(message(any=None, text=""))["any"] is None
    assert values.from_message(message(point={}))["point"] == {}


def test_what_python_has_more_than_one_of() -> None:
    made = message(
        n=np.int32(3),
        f=1,
        flag=np.bool_(True),
        color=Color.RED,
        point=Point(1.0, 2),
        numbers=np.array([1.0, 2.0]),
        grid=((1, 2), (3,)),
        data=bytearray(b"a"),
        at=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        colors=[1, "ECHO_COLOR_GREEN"],
    )
    plain = values.from_message(made)
    assert (plain["n"], plain["f"], plain["flag"], plain["color"]) == (3, 1.0, True, "RED")
    assert plain["point"] == {"x": 1.0, "y": 2.0}
    assert plain["numbers"] == [1.0, 2.0] and plain["grid"] == [[1, 2], [3]]
    assert plain["at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert message(at=datetime(2026, 1, 1)) == message(at="2026-01-01T00:00:00Z")
    assert plain["colors"] == ["RED", "GREEN"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"nothing": 1}, "nothing"),
        ({"point": {"z": 1}}, "point.z"),
        ({"text": 1}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"text": b"a"}, "text"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "1"}, "n"),
        ({"n": math.inf}, "n"),
        ({"n": 1 << 63}, "n"),
        ({"f": "1"}, "f"),
        ({"f": "NaN"}, "f"),
        ({"f": 10**400}, "f"),
        ({"flag": 1}, "flag"),
        ({"data": "text"}, "data"),
        ({"at": "yesterday"}, "at"),
        ({"at": 1}, "at"),
        ({"color": "BLUE"}, "color"),
        ({"color": "UNSPECIFIED"}, "color"),
        ({"color": 0}, "color"),
        ({"color": 1.0}, "color"),
        ({"colors": ["RED", "r"]}, "colors[1]"),
        ({"colors": "RED"}, "colors"),
        ({"points": [{}, {"x": "1"}]}, "points[1].x"),
        ({"points": [None]}, "points[0]"),
        ({"points": {}}, "points"),
        ({"by": {"a": {"x": None}, "b": {"x": ""}}}, 'by["b"].x'),
        ({"by": {1: {}}}, "by"),
        ({"by": []}, "by"),
        ({"counts": {"a": None}}, 'counts["a"]'),
        ({"grid": [[1], [1, "2"]]}, "grid[1][1]"),
        ({"grid": [1]}, "grid[0]"),
        ({"grid": [None]}, "grid[0]"),
        ({"x": [1.0]}, "x"),
        ({"x": b"bytes"}, "x"),
        ({"x": np.array(["a"])}, "x"),
        ({"x": np.array([1j])}, "x"),
        ({"x": Tensor("int8", (2,), b"a")}, "x.data"),
        ({"x": Tensor("int7", (2,), b"a")}, "x.dtype"),
        ({"image": b"png"}, "image"),
        ({"any": {"a": [b"x"]}}, 'any["a"][0]'),
        ({"any": 1 << 54}, "any"),
        ({"any": {1: 2}}, "any"),
        ({1: 2}, "1"),
    ],
)
def test_wrong_values_are_named(given: dict[Any, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        values.to_message(REQUEST, given)
    assert raised.value.field == field
    with pytest.raises(InvalidRequest) as raised:
        values.to_message(REQUEST, given, "inputs")
    assert raised.value.field == f"inputs.{field}"


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def test_nesting_is_bounded() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for convert in (lambda v: message(any=v), values.to_value):
        with pytest.raises(InvalidRequest, match="deep"):
            convert(endless)
    deep: Any = 1
    for _ in range(30):
        deep = {"a": deep}
    data = values.to_value(deep).SerializeToString()
    assert values.from_value(types_pb2.Value.FromString(data)) == deep
    whole = message(any=nested(20))
    assert REQUEST.FromString(whole.SerializeToString()) == whole


DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_numpy_arrays(dtype: str, shape: tuple[int, ...]) -> None:
    made = np.ones(shape, dtype)
    tensor = values.tensor(made)
    assert (tensor.dtype, tensor.shape, tensor.data) == (dtype, shape, made.tobytes())
    back = values.as_numpy(tensor)
    assert back.dtype == made.dtype and back.shape == shape and (back == made).all()
    assert not back.flags.writeable


def test_arrays_of_every_layout() -> None:
    made = np.arange(12, dtype="float32").reshape(3, 4)
    for view in (made.T, made[::2, ::-1], made.astype(">f4"), np.asfortranarray(made)):
        assert (values.as_numpy(values.tensor(view)) == view).all()
    assert values.tensor(np.array([1], "longlong")).dtype == "int64"
    assert values.tensor(array.array("d", [1.0])).dtype == "float64"


def test_torch_tensors() -> None:
    made = torch.arange(6, dtype=torch.float32, requires_grad=True).reshape(2, 3)
    tensor = values.tensor(made.T)
    assert (tensor.dtype, tensor.shape) == ("float32", (3, 2))
    assert values.as_numpy(tensor).tolist() == made.T.tolist()
    tensor = values.tensor(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    assert tensor == Tensor("bfloat16", (2,), b"\x80\x3f\x00\xc0")
    assert values.as_numpy(tensor).tolist() == [0x3F80, 0xC000]


def test_values_without_a_type() -> None:
    assert values.from_value(values.to_value(None)) is None
    assert values.from_value(values.to_value(np.float32(0.5))) == 0.5
    assert values.from_value(values.to_value(Color.RED)) == "RED"
    assert values.from_value(values.to_value(Point(1.0, 2.0))) == {"x": 1.0, "y": 2.0}
    assert values.from_value(values.to_value(np.zeros(2, "int8"))) == Tensor("int8", (2,), b"\0\0")
    into = types_pb2.Value()
    assert values.to_value((True, -(1 << 63)), into=into) is into
    assert values.from_value(into) == [True, -(1 << 63)]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (object(), "a"),
        (1 << 63, "a"),
        ("\ud800", "a"),
        ({1: 2}, "a"),
        ({"b": [1, {2}]}, 'a["b"][1]'),
        (Point, "a"),
        (np.array(["x"]), "a"),
    ],
)
def test_values_that_cannot_be(given: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        values.to_value(given, "a")
    assert raised.value.field == field


def test_json_forms() -> None:
    made = values.from_json(
        REQUEST,
        {
            "data": "/w==",
            "f": "-Infinity",
            "n": 3.0,
            "at": "2026-01-31T12:00:00Z",
            "x": {"dtype": "float32", "data": [[1, 2.5], [3, 4]]},
            "image": {"type": "image/png", "data": "eA=="},
        },
    )
    told = values.to_json(made)
    assert told["data"] == "/w==" and told["f"] == "-Infinity" and told["n"] == 3
    assert told["at"] == "2026-01-31T12:00:00Z"
    assert told["image"] == {"type": "image/png", "data": "eA=="}
    assert told["x"]["shape"] == [2, 2]
    assert values.from_json(REQUEST, told) == made


@pytest.mark.parametrize(
    ("given", "shape", "numbers"),
    [
        ({"dtype": "bfloat16", "data": [1.0, -2.0]}, (2,), [0x3F80, 0xC000]),
        ({"dtype": "float16", "data": []}, (0,), []),
        ({"dtype": "int64", "data": 5}, (), 5),
        ({"dtype": "bool", "data": [[True], [False]]}, (2, 1), [[True], [False]]),
        ({"dtype": "int8", "shape": [2, 1], "data": [1, 2]}, (2, 1), [[1], [2]]),
        ({"dtype": "int8", "shape": [1, 0], "data": [[]]}, (1, 0), [[]]),
        ({"dtype": "int8", "shape": [2], "data": "AQI="}, (2,), [1, 2]),
    ],
)
def test_tensors_in_json(given: Any, shape: tuple[int, ...], numbers: Any) -> None:
    tensor = values.from_message(values.from_json(REQUEST, {"x": given}))["x"]
    assert tensor.shape == shape
    assert values.as_numpy(tensor).tolist() == numbers


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"data": "?"}, "data"),
        ({"data": "é"}, "data"),
        ({"data": 1}, "data"),
        ({"f": "inf"}, "f"),
        ({"image": {"type": "image/png"}}, "image.data"),
        ({"image": {"data": ""}}, "image.type"),
        ({"image": {"type": "image/png", "data": "", "more": 1}}, "image.more"),
        ({"x": [1]}, "x"),
        ({"x": {"data": [1]}}, "x.dtype"),
        ({"x": {"dtype": "complex", "data": [1]}}, "x.dtype"),
        ({"x": {"dtype": "int8", "data": [128]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": [1.5]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": [[1], [1, 2]]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": [[1], 2]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": ["1"]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": None}}, "x.data"),
        ({"x": {"dtype": "bool", "data": [1]}}, "x.data"),
        ({"x": {"dtype": "float16", "data": [1e6]}}, "x.data"),
        ({"x": {"dtype": "bfloat16", "data": [1e300]}}, "x.data"),
        ({"x": {"dtype": "int8", "data": nested(50)}}, "x.data"),
        ({"x": {"dtype": "int8", "shape": [3], "data": [1, 2]}}, "x.shape"),
        ({"x": {"dtype": "int8", "shape": [4], "data": [[1, 2], [3, 4]]}}, "x.shape"),
        ({"x": {"dtype": "int8", "shape": ["a"], "data": "AQ=="}}, "x.shape"),
        ({"x": {"dtype": "int8", "shape": [2], "data": "AQ=="}}, "x.data"),
    ],
)
def test_json_that_cannot_be(given: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        values.from_json(REQUEST, given)
    assert raised.value.field == field
