from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import subjects


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("tiny-1", "tiny-1"),
        ("Qwen/Qwen2.5", "Qwen=2FQwen2=2E5"),
        ("a b", "a=20b"),
        ("é", "=C3=A9"),
        ("*", "=2A"),
        (">", "=3E"),
        ("=41", "=3D41"),
    ],
)
def test_a_name_as_a_token(name: str, token: str) -> None:
    assert subjects.token(name) == token


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_tokens_are_legal_and_tell_names_apart(one: str, two: str) -> None:
    first, second = subjects.token(one), subjects.token(two)
    assert re.fullmatch(r"[A-Za-z0-9_=-]{1,96}", first)
    assert (first == second) == (one == two)


def test_long_names_that_differ_at_their_end_differ() -> None:
    assert subjects.token("x" * 300 + "a") != subjects.token("x" * 300 + "b")


def test_a_request_goes_to_the_stream_that_holds_its_class() -> None:
    for urgency, name in enumerate(subjects.CLASSES):
        assert subjects.request("m", urgency) == f"ms.req.m.{name}"
        assert subjects.consumer("m", urgency) == f"m_{name}"
    held = {
        subjects.STREAM: subjects.STREAM_SUBJECTS,
        subjects.RESUME_STREAM: subjects.RESUME_SUBJECTS,
    }
    for urgency, name in enumerate(subjects.CLASSES):
        assert f"ms.req.*.{name}" in held[subjects.stream_of(urgency)]
