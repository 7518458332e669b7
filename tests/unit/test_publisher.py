from __future__ import annotations

from unittest.mock import patch

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


def test_a_token_alone_comes_ready_where_the_gateway_takes_it() -> None:
    publisher = Publisher(0, 7, (0, 0), ready=True)
    frames = [publisher.say(0, [token], f" {token}", [2], None) for token in (5, 6)]
    assert [wire.is_token(frame) for frame in frames] == [False, True], "the first is a chunk"
    add(publisher, 8)
    add(publisher, 9, choice=1)
    frames = publisher.flush()
    assert [wire.is_token(frame) for frame in frames] == [True, False]
    for frame in (
        publisher.say(0, [1, 2], "ab", [1, 2], None),
        publisher.say(0, [1], "a", [1], [(0.0, ())]),
        publisher.say(0, [1 << 32], "a", [1], None),
        Publisher(1, 7, (4,), ready=True).say(0, [1], "a", [1], None),
        Publisher(0, 7, (4,)).say(0, [1], "a", [1], None),
    ):
        assert not wire.is_token(frame)
    (again,) = chunks(publisher.resend(0, 1)[:1])
    assert (again.index, again.token_ids[:2]) == (1, (6, 8))


def test_what_is_acknowledged_is_forgotten() -> None:
    publisher = Publisher(0, 7, (0, 0))
    add(publisher, 0)
    assert publisher.acknowledge((1, 0)) == 0, "nothing was sent yet"
    for token in range(1, 4):
        publisher.flush()
        add(publisher, token)
    add(publisher, 9, choice=1)
    publisher.flush()
    assert publisher.kept == 5
    assert publisher.acknowledge((3, 0)) == 3
    assert publisher.kept == 2
    assert [chunk.index for chunk in chunks(publisher.resend(0, 0))] == [3]


def test_what_travelled_together_is_kept_until_all_of_it_is_acknowledged() -> None:
    publisher = Publisher(0, 7, (0,))
    for token in range(4):
        add(publisher, token)
    publisher.flush()
    assert publisher.acknowledge((3,)) == 0
    assert publisher.kept == 4
    (chunk,) = chunks(publisher.resend(0, 3))
    assert (chunk.index, chunk.stop) == (0, 4), "the gateway cuts off what it has"
    assert publisher.acknowledge((4,)) == 4
    assert publisher.kept == 0


def test_log_probabilities_travel_with_their_tokens() -> None:
    publisher = Publisher(0, 7, (0,))
    for token in range(3):
        publisher.add(0, [token], "x", [1], [(-1.0 * token, ())])
    (chunk,) = chunks(publisher.flush())
    assert chunk.logprobs == ((0.0, ()), (-1.0, ()), (-2.0, ()))
    assert chunks(publisher.resend(0, 0)) == [chunk]


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


def _read(into: dict[int, int], frames: list[bytes]) -> None:
    """Enter the tokens of some chunks by index: what is said twice must be the same."""
    for chunk in chunks(frames):
        begin = 0
        for place, (token, end) in enumerate(
            zip(chunk.token_ids, chunk.ends or (len(chunk.text),), strict=True), chunk.index
        ):
            assert chunk.text[begin:end] == f" {token}"
            assert into.setdefault(place, token) == token
            begin = end


@patch("workers.publisher.MOST_TOKENS", 5)
@given(data=st.data())
def test_the_record_is_what_was_sent_and_not_acknowledged(data: st.DataObject) -> None:
    publisher = Publisher(0, 7, (0,))
    told: dict[int, int] = {}
    stops, given, sent, kept, known = [0], 0, 0, 0, 0
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["add", "add", "add", "flush", "acknowledge", "resend"])):
            case "add":
                count = data.draw(st.sampled_from([1, 1, 1, 3, 6]))
                add(publisher, *range(given, given + count))
                given, kept = given + count, kept + count
            case "flush":
                frames = publisher.flush()
                stops += [chunk.stop for chunk in chunks(frames)]
                _read(told, frames)
                sent = given
            case "acknowledge":
                frontier = data.draw(st.integers(0, given))
                known = max(known, min(frontier, sent))
                kept -= publisher.acknowledge((frontier,))
            case "resend":
                again: dict[int, int] = {}
                start = data.draw(st.integers(0, given))
                _read(again, publisher.resend(0, start))
                assert again.keys() <= set(range(sent))
                assert again.keys() >= set(range(max(start, known), sent))
        assert publisher.kept == kept
        assert given - kept == max(stop for stop in stops if stop <= known), "whole chunks"
    _read(told, publisher.flush())
    assert told == {index: index for index in range(given)}
