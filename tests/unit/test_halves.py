from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.halves import LONGEST_FIELD, may_hold_half, refuse_halves
from shared.errors import InvalidRequest

HALF = "\udc00"
VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.characters(categories=["L", "Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


def is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(VALUES, st.booleans())
def test_only_halves_are_refused_and_none_is_missed(value: Any, ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    read = json.loads(data)
    if is_text(read):
        refuse_halves(read)
        return
    assert may_hold_half(data)
    with pytest.raises(InvalidRequest) as caught:
        refuse_halves(read)
    assert is_text([caught.value.message, caught.value.field])


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b'{"a": "plain"}', False),
        ('{"a": "\uac00\U0001f600"}'.encode(), False),
        (rb'"\u00e9\n"', False),
        (rb'"\ud83d\ude00"', True),
        (b'"\xed\xa0\x80"', True),
        ('"a"'.encode("utf-16"), True),
    ],
)
def test_few_bodies_are_looked_at(data: bytes, may: bool) -> None:
    assert may_hold_half(data) is may


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (HALF, ""),
        ({"a": {"b": [1, ["x", HALF]]}, "c": HALF}, "a.b[1][1]"),
        ({"a": "x", "b": [{"c": HALF}, HALF]}, "b[0].c"),
        ({"a": {HALF: 1}}, "a"),
        ({"n" * 1000: HALF}, "n" * LONGEST_FIELD),
    ],
)
def test_the_first_field_is_named(value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_halves(value)
    assert caught.value.field == field


def test_depth_is_no_matter() -> None:
    value: Any = HALF
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidRequest):
        refuse_halves(value)
