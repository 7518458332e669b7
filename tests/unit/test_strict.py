from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest
from shared.signature import ListType, MapType, TensorType
from shared.typed import Typed
from shared.typed.strict import MOST_FIELDS, Strict
from shared.typed.unknown import SMALL
from tests.unit.typed_cases import BOOL, BYTES, COLOR, DOUBLE, INT, STRING, record, signature

ITEM = record("Item", score=DOUBLE, name=STRING)
TYPED = Typed(
    signature(
        None,
        text=STRING,                     # 1
        n=INT,                           # 2
        items=ListType(ITEM),            # 3
        by=MapType(ITEM),                # 4
        numbers=ListType(INT),           # 5
        grid=ListType(ListType(STRING)), # 6
        x=TensorType(),                  # 7
        color=COLOR,                     # 8
        names=ListType(STRING),          # 9
        labels=MapType(STRING),          # 10
        sizes=ListType(DOUBLE),          # 11
    )
)  # fmt: skip


def sized(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    assert len(body) < 128
    return bytes([number << 3 | 2, len(body)]) + body


def varint(number: int, value: int = 1) -> bytes:
    return bytes([number << 3, value])


def fixed64(number: int) -> bytes:
    return bytes([number << 3 | 1]) + b"\0" * 8


GOOD_ITEM = fixed64(1) + sized(2, b"a")
KEY = sized(1, b"k")

FAULTS: dict[str, tuple[bytes, str]] = {
    "text as a number": (varint(1), "text"),
    "a number as text": (sized(2, b"1"), "n"),
    "a number as fixed64": (fixed64(2), "n"),
    "an enum as text": (sized(8, b"RED"), "color"),
    "bad utf-8": (sized(1, b"\xff"), "text"),
    "half a surrogate pair": (sized(1, b"\xed\xa0\x80"), "text"),
    "bad utf-8 in a list": (sized(9, b"a") + sized(9, b"\xff"), "names[1]"),
    "truncated text": (bytes([1 << 3 | 2, 5]) + b"ab", "text"),
    "truncated number": (bytes([2 << 3, 0x80]), "n"),
    "a number of 11 bytes": (bytes([2 << 3]) + b"\x80" * 10 + b"\1", "n"),
    "a truncated tag": (b"\x80", ""),
    "no tag at all": (b"\0", ""),
    "wire type 7": (b"\x0f", ""),
    "an end of no group": (b"\x0c", ""),
    "an item's wrong type": (sized(3, GOOD_ITEM) + sized(3, varint(1)), "items[1].score"),
    "an item's bad utf-8": (sized(3, sized(2, b"\xff")), "items[0].name"),
    "an item cut short": (sized(3, bytes([1 << 3 | 1]) + b"abc"), "items[0].score"),
    "an item as a number": (varint(3), "items[0]"),
    "a map's item's wrong type": (sized(4, KEY, sized(2, varint(1))), 'by["k"].score'),
    "a map's wrong value": (sized(10, KEY, varint(2)), 'labels["k"]'),
    "a map's wrong key": (sized(10, varint(1), sized(2, b"v")), "labels"),
    "a map entry's unknown field": (sized(10, KEY, sized(2, b"v"), varint(3)), 'labels["k"]'),
    "a map as a number": (varint(10), "labels"),
    "a number in a nested list": (sized(6) + sized(6, sized(1, b"a"), varint(1)), "grid[1][1]"),
    "a tensor's dtype": (sized(7, varint(1)), "x.dtype"),
    "truncated packed numbers": (sized(5, b"\1\x80"), "numbers"),
    "packed doubles of odd length": (sized(11, b"\0" * 9), "sizes"),
    "a group": (b"\x0b\x08\x01\x0c", "text"),
    "nested beyond its message": (bytes([3 << 3 | 2, 3, 2 << 3 | 2, 9]) + b"a", "items[0].name"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "field"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(data: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        TYPED.parse(data)
    assert raised.value.field == field
    assert raised.value.message


def test_unknown_fields_are_dropped() -> None:
    known = TYPED.request(text="a", items=[{"name": "b"}])
    data = known.SerializeToString() + varint(15) + sized(3, fixed64(1), varint(9))
    known.items.add(score=0.0)
    assert TYPED.parse(data) == known
    flat = Typed(signature(None, text=STRING))
    parsed = flat.parse(sized(1, b"a") + varint(9))
    assert parsed.text == "a" and not len(UnknownFieldSet(parsed))


def test_unknown_fields_in_large_messages() -> None:
    whole = TYPED.request(items=[{"name": "b" * SMALL}], by={"a": {"name": "b" * SMALL}}, n=1)
    whole.items.add(name="c")
    assert TYPED.parse(whole.SerializeToString()) == whole
    for part in (varint(15), sized(3, varint(9)), sized(4, KEY, sized(2, varint(9)))):
        parsed = TYPED.parse(whole.SerializeToString() + part)
        assert not unknown(parsed)
    with pytest.raises(InvalidRequest) as raised:
        TYPED.parse(whole.SerializeToString() + sized(4, KEY, sized(2, varint(1))))
    assert raised.value.field == 'by["k"].score'


def test_packed_and_unpacked_numbers_are_both_right() -> None:
    data = sized(5, b"\1\2") + varint(5, 3)
    assert list(TYPED.parse(data).numbers) == [1, 2, 3]


def test_the_search_for_a_fault_is_bounded() -> None:
    data = varint(5) * (MOST_FIELDS + 1) + sized(1, b"\xff")
    with pytest.raises(InvalidRequest, match="too many"):
        TYPED.parse(data)


def test_nesting_is_bounded() -> None:
    data = sized(4, b"\x08\x01")
    for _ in range(300):
        size = len(data)
        length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        data = b"\x32" + length + data
        if size > 16000:
            break
    with pytest.raises(InvalidRequest):
        Strict(pb.ListModelsResponse)(b"\x0a\x02\x0a\x05" + data)
    lists = pb.PredictResponse()
    inner = lists.result
    for _ in range(60):
        inner = inner.list_value.values.add()
    inner.int_value = 1
    with pytest.raises(InvalidRequest, match="too deeply"):
        Strict(pb.PredictResponse)(lists.SerializeToString())


PREDICT = Strict(pb.PredictRequest)


def test_untyped_requests() -> None:
    request = pb.PredictRequest(model="m")
    request.inputs["a"].list_value.values.add(int_value=-1)
    assert PREDICT(request.SerializeToString()) == request
    wrong = sized(2, KEY, sized(2, sized(6, sized(1, varint(4)))))
    with pytest.raises(InvalidRequest) as raised:
        PREDICT(wrong)
    assert raised.value.field == 'inputs["k"].list_value.values[0].string_value'


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
@example(b"\x0b\x0b\x0c\x0c")
def test_any_bytes_parse_as_they_should_or_are_refused(data: bytes) -> None:
    try:
        expected: Any = TYPED.request.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequest):
            TYPED.parse(data)
        return
    try:
        parsed = TYPED.parse(data)
    except InvalidRequest:
        assert expected.ByteSize() and unknown(expected)
        return
    expected.DiscardUnknownFields()
    assert parsed == expected


def unknown(message: Any) -> bool:
    size = message.ByteSize()
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return bool(copy.ByteSize() < size)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_message_cut_short_never_passes_as_whole(data: st.DataObject) -> None:
    flat = Typed(signature(None, a=BYTES, b=BOOL, c=record("R", d=STRING)))
    message = flat.request(
        a=data.draw(st.binary(min_size=1, max_size=9)), c={"d": data.draw(st.text(min_size=1))}
    )
    whole = message.SerializeToString()
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    first = 2 + len(message.a)
    if len(cut) == first:
        flat.parse(cut)  # Ends between two fields: what is missing is found by the check.
        return
    with pytest.raises(InvalidRequest) as raised:
        flat.parse(cut)
    assert raised.value.field in ("", "a", "c", "c.d")
