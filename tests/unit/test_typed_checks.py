from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import values
from shared.errors import InvalidRequest
from shared.signature import Field, ListType, MapType, MediaType, Record, Signature, TensorType
from shared.typed import Typed
from shared.values import Media, Tensor
from tests.unit.typed_cases import (
    COLOR,
    DOUBLE,
    INT,
    SIGNATURES,
    STRING,
    TIME,
    inputs,
    record,
    signature,
)


def refused(built: Typed, message: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as raised:
        built.check(message)
    return raised.value.field, raised.value.message


def given_to(built: Typed, /, **plain: Any) -> Any:
    return values.to_message(built.request, plain)


@settings(max_examples=100, deadline=None)
@given(SIGNATURES, st.data())
def test_what_the_signature_allows_passes(made: Signature, data: st.DataObject) -> None:
    built = Typed(made)
    plain = data.draw(inputs(made.inputs))
    message = built.parse(values.to_message(built.request, plain).SerializeToString())
    built.check(message)
    assert values.from_message(message) == plain
    again = values.from_json(built.request, values.to_json(message))
    assert again == message


def test_a_missing_parameter_is_named() -> None:
    built = Typed(signature(None, text=STRING, items=ListType(record("Item", score=DOUBLE))))
    assert refused(built, given_to(built)) == ("text", "text is missing: it has no default")
    built.check(given_to(built, text=""))
    message = given_to(built, text="", items=[{"score": 0.0}, {}])
    assert refused(built, message)[0] == "items[1].score"


def test_what_has_a_default_may_be_left_out() -> None:
    made = Record("I", (Field("n", 1, INT, False, 3), Field("r", 2, record("R", x=INT), False)))
    built = Typed(Signature("echo", "1", made, None))
    built.check(given_to(built))
    assert refused(built, given_to(built, r={}))[0] == "r.x"


def test_paths_through_lists_and_maps() -> None:
    item = record("Item", color=COLOR)
    built = Typed(signature(None, grid=ListType(ListType(item)), by=MapType(MapType(item))))
    message = given_to(built, grid=[[], [{"color": "RED"}, {}]])
    assert refused(built, message)[0] == "grid[1][1].color"
    message = given_to(built, by={"a": {"b": {}}})
    assert refused(built, message)[0] == 'by["a"]["b"].color'


@pytest.mark.parametrize("number", [0, 3, -1])
def test_enum_numbers(number: int) -> None:
    built = Typed(signature(None, color=COLOR, colors=ListType(COLOR)))
    assert refused(built, built.request(color=number))[0] == "color"
    field, why = refused(built, built.request(color=1, colors=[2, number]))
    assert field == "colors[1]"
    assert "1 (RED), 2 (GREEN)" in why


def test_media_kinds() -> None:
    built = Typed(signature(None, image=MediaType("image")))
    built.check(given_to(built, image=Media("image/png", b"x")))
    assert refused(built, given_to(built, image=Media("audio/wav", b"x")))[0] == "image.type"


def test_times() -> None:
    built = Typed(signature(None, at=TIME))
    built.check(given_to(built, at="2026-01-31T12:00:00.5+01:00"))
    message = given_to(built, at="2026-01-31T12:00:00Z")
    message.at.nanos = -1
    assert refused(built, message)[0] == "at"
    message.at.nanos, message.at.seconds = 0, 1 << 40
    assert refused(built, message)[0] == "at"


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "field"),
    [
        ("float64", (1, 2), b"0" * 16, "x.dtype"),
        ("float31", (1, 2), b"0" * 8, "x.dtype"),
        ("", (1, 2), b"0" * 8, "x.dtype"),
        ("float32", (2,), b"0" * 8, "x.shape"),
        ("float32", (), b"0" * 4, "x.shape"),
        ("float32", (1, 3), b"0" * 12, "x.shape"),
        ("float32", (1, 2), b"0" * 7, "x.data"),
        ("float32", (1, 2), b"", "x.data"),
        ("float32", ((1 << 64) - 1, 2), b"0" * 8, "x.data"),
        ("float32", (1,) * 100_000, b"0" * 4, "x.shape"),
        ("float32", ((1 << 64) - 1,) * 100_000, b"", "x.shape"),
    ],
)
def test_tensors(dtype: str, shape: tuple[int, ...], data: bytes, field: str) -> None:
    built = Typed(signature(None, x=TensorType("float32", ("batch", 2))))
    message = built.request()
    message.x.dtype, message.x.data = dtype, data
    message.x.shape.extend(shape)
    assert refused(built, message)[0] == field


def test_bools_are_zero_or_one() -> None:
    built = Typed(signature(None, x=TensorType()))
    built.check(built.request(x={"dtype": "bool", "shape": [3], "data": b"\0\1\0"}))
    message = built.request(x={"dtype": "bool", "shape": [3], "data": b"\0\2\0"})
    assert refused(built, message)[0] == "x.data"


def row(length: int) -> Tensor:
    return Tensor("int8", (length,), b"\0" * length)


def test_equal_dimensions_are_equal_everywhere() -> None:
    line = TensorType("int8", ("n",))
    built = Typed(signature(None, a=line, b=ListType(line), any=TensorType("int8", ("_",))))
    built.check(given_to(built, a=row(2), b=[row(2), row(2)], any=row(5)))
    field, why = refused(built, given_to(built, a=row(2), b=[row(2), row(3)], any=row(5)))
    assert field == "b[1].shape"
    assert why == "b[1].shape is [3]: want [n], and n is 2 elsewhere in the request"
