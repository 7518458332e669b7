from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from workers.publisher import MOST_TOKENS, Publisher


def chunks(frames: list[bytes]) -> list[wire.Chunk]:
    decoded = [wire.decode(frame) for frame in frames]
    assert all(isinstance(frame, wire.Chunk) for frame in decoded)
    return decoded  # type: ignore[return-value]


def add(publisher: Publisher, *ids: int, choice: int = 0) -> None:
    text = "".join(f" {token}" for token in ids)
    ends = [len("".join(f" {token}" for token in ids[: n + 1])) for n in range(len(ids))]
    publisher.add(choice, list(ids), text, ends, None)


def test_tokens_given_together_travel_together() -> None:
    publisher = Publisher(2, 7, (10,))
    add(publisher, 1)
    add(publisher, 2, 3)
    (chunk,) = chunks(publisher.flush())
    assert chunk == wire.Chunk(2, 7, 10, (1, 2, 3), " 1 2 3", (2, 4, 6))
    assert publisher.totals == (13,)
    assert publisher.flush() == []


def test_what_is_acknowledged_is_forgotten() -> None:
    publisher = Publisher(0, 7, (0, 0))
    for token in range(4):
        add(publisher, token)
    add(publisher, 9, choice=1)
    assert publisher.acknowledge((4, 1)) == 0, "nothing was sent yet"
    publisher.flush()
    assert publisher.kept == 5
    assert publisher.acknowledge((3, 0)) == 3
    assert publisher.kept == 2
    assert [chunk.index for chunk in chunks(publisher.resend(0, 0))] == [3]


@pytest.mark.parametrize(("choice", "index", "expected"), [
    (0, 0, [(0, 3)]),
    (0, 2, [(2, 1)]),
    (0, 3, []),
    (5, 0, []),
    (-1, 0, []),
])  # fmt: skip
def test_resend(choice: int, index: int, expected: list[tuple[int, int]]) -> None:
    publisher = Publisher(0, 7, (0,))
    for token in range(3):
        add(publisher, token)
        publisher.flush()
    add(publisher, 3)  # Not sent, so not sent again either.
    again = chunks(publisher.resend(choice, index))
    assert [(chunk.index, len(chunk.token_ids)) for chunk in again] == expected


def test_a_long_record_is_cut() -> None:
    publisher = Publisher(0, 7, (0,))
    for token in range(MOST_TOKENS + 5):
        add(publisher, token)
    assert [len(chunk.token_ids) for chunk in chunks(publisher.flush())] == [MOST_TOKENS, 5]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=12), st.data())
def test_however_it_is_grouped_the_record_says_the_same(
    pieces: list[list[int]], data: st.DataObject
) -> None:
    publisher = Publisher(0, 7, (0,))
    for piece in pieces:
        add(publisher, *piece)
        if data.draw(st.booleans()):
            publisher.flush()
    publisher.flush()
    whole = [token for piece in pieces for token in piece]
    start = data.draw(st.integers(0, len(whole)))
    tokens: dict[int, int] = {}
    for chunk in chunks(publisher.resend(0, start)):
        ends = chunk.ends or (len(chunk.text),)
        begins = (0, *ends[:-1])
        for place, (token, begin, end) in enumerate(
            zip(chunk.token_ids, begins, ends, strict=True)
        ):
            assert chunk.text[begin:end] == f" {token}"
            tokens[chunk.index + place] = token
    assert [tokens[index] for index in range(start, len(whole))] == whole[start:]
