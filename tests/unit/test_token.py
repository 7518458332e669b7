"""A token whose message is ready is the chunk that it stands for, whichever way it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.outlet import Flusher, GenerateOutlet, nobody_to_tell
from shared import wire

pytestmark = pytest.mark.unit

UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
GOLDEN = "01000000000000000700000005000000090002" + "1209080512022039" + "1a0109"


class Sent:
    """A client's connection."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def write(self, messages: Sequence[bytes]) -> bool:
        self.messages += messages
        return True

    async def send(self, messages: Sequence[bytes]) -> None:
        raise AssertionError(messages)

    def finish(self) -> bool:
        return True


def test_golden_bytes() -> None:
    assert (wire.encode_token(7, 5, 9, " 9") or b"").hex() == GOLDEN
    assert wire.decode(bytes.fromhex(GOLDEN)) == wire.Chunk(0, 7, 5, (9,), " 9")


@given(st.integers(0, 2**63), UINT32, UINT32, TEXT)
@example(7, 0, 0, "")
@example(7, 2**14, 2**21 - 1, "x" * 63)
@example(7, 2**32 - 1, 2**32 - 1, "x" * 65535)
async def test_the_message_is_the_one_that_the_gateway_makes_of_the_chunk(
    exec_: int, index: int, token: int, text: str
) -> None:
    frame = wire.encode_token(exec_, index, token, text)
    assert frame is not None
    assert wire.is_token(frame)
    chunk = wire.decode(frame)
    assert chunk == wire.Chunk(0, exec_, index, (token,), text)

    sent = Sent()
    outlet = GenerateOutlet("name", "m", sent, Flusher(), nobody_to_tell)
    outlet.delta(index, chunk.token_ids, chunk.text, chunk.choice, chunk.attempt, chunk.logprobs)
    assert sent.messages == [frame[wire.TOKEN_HEAD :]]
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("index", "token", "text"),
    [(0, -1, ""), (0, 2**32, ""), (2**32, 0, ""), (-1, 0, ""), (0, 0, "x" * 65536)],
)
def test_what_does_not_fit_is_left_to_a_chunk(index: int, token: int, text: str) -> None:
    assert wire.encode_token(7, index, token, text) is None


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        wire.encode_token(7, 1, 1, "\ud800")


def test_a_frame_that_was_cut_or_says_two_things_is_refused() -> None:
    frame = bytes.fromhex(GOLDEN)
    for size in range(1, len(frame)):
        with pytest.raises(wire.WireError, match="token"):
            wire.decode(frame[:size])
    for place in (16, 18, len(frame) - 1):  # The id, the text's size, the message's id.
        broken = bytearray(frame)
        broken[place] += 1
        with pytest.raises(wire.WireError, match="not its own"):
            wire.decode(bytes(broken))


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    try:
        assert isinstance(wire.decode(b"\1" + data), wire.Chunk)
    except wire.WireError:
        return
