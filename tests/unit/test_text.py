"""Detokenizer and stop strings: whatever the tokens, the text is that of all of them together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire import TokenLogprobs
from workers.engines.text import Pieces, StopMatcher, Taken, TextStream

BYTES = Pieces([bytes([byte]) for byte in range(256)])
WORDS = Pieces([b"a", b"b", b"ab", b"ba", b"abba", "é".encode(), b"", b"\xc3", b"\xa9", b"\xff"])

tokens = st.lists(st.integers(0, len(WORDS) - 1), max_size=40)
stops = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)


def whole(pieces: Pieces, ids: list[int]) -> str:
    """The text of ids, without an unfinished character at the end."""
    raw = b"".join(
        piece.encode() if isinstance(piece := pieces[token], str) else piece for token in ids
    )
    for cut in range(4):
        text = raw[: len(raw) - cut].decode("utf-8", "replace")
        if not cut or not raw[len(raw) - cut :].decode("utf-8", "replace").strip("\ufffd"):
            try:
                raw[len(raw) - cut :].decode("utf-8")
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data" and error.start == 0:
                    return text
    return raw.decode("utf-8", "replace")


def first_stop(text: str, strings: list[str]) -> tuple[int, int] | None:
    """Begin and end of the stop string that ends first; of several the longest."""
    found = [
        (end, end - len(stop))
        for end in range(len(text) + 1)
        for stop in strings
        if text[:end].endswith(stop)
    ]
    return (min(found)[1], min(found)[0]) if found else None


def run(stream: TextStream, ids: list[int]) -> tuple[Taken, int]:
    """Push tokens until a stop string, checking each piece; what came, and how many went in."""
    total = Taken()
    count = 0
    for count, token in enumerate(ids, 1):
        stopped = stream.push(token)
        collect(total, stream.take())
        if stopped:
            return total, count
    stream.flush()
    collect(total, stream.take())
    return total, count


def collect(total: Taken, taken: Taken | None) -> None:
    if taken is None:
        return
    assert taken.token_ids
    assert len(taken.ends) == len(taken.token_ids)
    assert taken.ends == sorted(taken.ends)
    assert taken.ends[-1] == len(taken.text)
    total.ends += [len(total.text) + end for end in taken.ends]
    total.token_ids += taken.token_ids
    total.text += taken.text


@given(tokens)
def test_the_pieces_are_the_text(ids: list[int]) -> None:
    total, _ = run(TextStream(WORDS), ids)
    assert total.token_ids == ids
    assert total.text == whole(WORDS, ids)
    for count, end in enumerate(total.ends, 1):
        assert total.text[:end] == whole(WORDS, ids[:count])


@given(st.text(max_size=20))
def test_a_character_comes_with_its_last_byte(text: str) -> None:
    total, _ = run(TextStream(BYTES), list(text.encode()))
    assert total.text == text
    ends = [len(text[:end]) for end in range(1, len(text) + 1)]
    assert sorted(set(total.ends) - {0}) == ends


@given(tokens, stops)
def test_the_text_ends_before_the_first_stop_string(ids: list[int], strings: list[str]) -> None:
    total, count = run(TextStream(WORDS, strings), ids)
    text = whole(WORDS, ids)
    found = first_stop(text, strings)
    if found is None:
        assert (total.token_ids, total.text, count) == (ids, text, len(ids))
        return
    begin, end = found
    assert total.text == text[:begin]
    assert total.token_ids == ids[: len(total.token_ids)]
    lengths = [len(whole(WORDS, ids[:number])) for number in range(len(ids) + 1)]
    assert count == next(number for number, length in enumerate(lengths) if length >= end)


@given(tokens, stops)
def test_what_was_given_out_is_never_part_of_a_stop_string(
    ids: list[int], strings: list[str]
) -> None:
    stream = TextStream(WORDS, strings)
    said = 0
    for count, token in enumerate(ids, 1):
        if stream.push(token):
            break
        taken = stream.take()
        said += len(taken.text) if taken else 0
        text = whole(WORDS, ids[:count])
        for stop in strings:
            for length in range(1, len(stop)):
                assert not text.endswith(stop[:length]) or said <= len(text) - length


@given(tokens, stops, st.data())
def test_a_replay_goes_on_where_the_first_stopped(
    ids: list[int], strings: list[str], data: st.DataObject
) -> None:
    full, count = run(TextStream(WORDS, strings), ids)
    cut = data.draw(st.integers(0, len(full.token_ids)))
    stream = TextStream(WORDS, strings)
    read = stream.replay(full.token_ids[:cut])
    assert stream.take() is None
    rest = Taken()
    if stream.stopped:
        assert (read, cut) == (count, len(full.token_ids))
    else:
        assert read == cut
        rest, further = run(stream, ids[cut:])
        assert cut + further == count
    assert rest.token_ids == full.token_ids[cut:]
    assert rest.text == full.text[full.ends[cut - 1] if cut else 0 :]


@given(st.text("ab", max_size=60), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1))
def test_the_matcher_finds_what_a_search_finds(text: str, strings: list[str]) -> None:
    matcher = StopMatcher(strings)
    found = first_stop(text, strings)
    for place, char in enumerate(text):
        start = matcher.feed(char)
        if start is not None:
            assert found == (place + start, place + 1)
            return
        held = [
            length
            for stop in strings
            for length in range(1, len(stop))
            if text[: place + 1].endswith(stop[:length])
        ]
        assert matcher.held == max(held, default=0)
    assert found is None


def test_a_token_waits_until_its_text_is_decided() -> None:
    stream = TextStream(BYTES, ["END"])
    given_out = []
    for byte in b"an EN, an END":
        stopped = stream.push(byte)
        taken = stream.take()
        given_out.append(taken.text if taken else None)
    assert stopped
    assert given_out == ["a", "n", " ", None, None, "EN,", " ", "a", "n", " ", None, None, None]


def test_the_text_before_a_stop_string_in_one_token_is_given_out() -> None:
    stream = TextStream(Pieces([b"one", b"two\nUs", b"er: x"]), ["\nUser"])
    assert [stream.push(token) for token in range(3)] == [False, False, True]
    taken = stream.take()
    assert taken is not None
    assert (taken.token_ids, taken.text, taken.ends) == ([0, 1], "onetwo", [3, 6])


def test_logprobs_stay_with_their_tokens() -> None:
    stream = TextStream(BYTES, ["ab"])
    seen = []
    for place, byte in enumerate(b"xaxab"):
        stream.push(byte, TokenLogprobs(-float(place)))
        taken = stream.take()
        seen += (
            [
                (token, own.logprob)
                for token, own in zip(taken.token_ids, taken.logprobs, strict=True)
            ]
            if taken
            else []
        )
    assert seen == [(ord("x"), 0.0), (ord("a"), -1.0), (ord("x"), -2.0)]


@pytest.mark.parametrize(("token", "label"), [(0, "a"), (5, "é"), (6, "<|end|>"), (7, "\ufffd")])
def test_labels(token: int, label: str) -> None:
    pieces = Pieces([b"a", b"b", b"", b"", b"", "é".encode(), b"", b"\xc3"], {6: "<|end|>"})
    assert pieces.label(token) == label


def test_a_token_costs_the_same_however_much_is_held() -> None:
    # Each of these texts keeps nearly the whole stop string held back, over and over.
    stream = TextStream(BYTES, ["a" * 2000 + "b"])
    for _ in range(20_000):
        stream.push(ord("a"))
    stream.flush()
    taken = stream.take()
    assert taken is not None
    assert len(taken.text) == 20_000
