"""What an exec says: chunks stamped with attempt and index, kept until the gateway has them. Pure.

What was sent is kept as the bytes it was: a record of tokens, texts and lists would be several
times as much memory, which every token passes through.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from shared import wire

MOST_TOKENS = 512

_stop = itemgetter(0)


@dataclass(slots=True)
class Piece:
    """Tokens of one choice that will travel together; `stop` is the index after the last."""

    index: int
    stop: int
    ids: list[int]
    text: str
    ends: list[int]
    logprobs: list[Any] | None

    def extend(
        self, ids: list[int], text: str, ends: list[int], logprobs: list[Any] | None
    ) -> None:
        """Take in the tokens that follow."""
        begin = len(self.text)
        self.text += text
        if len(ids) == 1:  # The usual case, without a list for it.
            self.ids.append(ids[0])
            self.ends.append(begin + ends[0])
        else:
            self.ids.extend(ids)
            self.ends.extend([begin + end for end in ends])
        if self.logprobs is not None and logprobs is not None:
            self.logprobs.extend(logprobs)
        self.stop += len(ids)


@dataclass(slots=True)
class Lane:
    """One choice.

    Attributes:
        next: The index of the next token.
        sent: The index after the last token sent.
        kept_from: The index of the first token in the record.
        said: Chunks sent and not acknowledged, each with the index after its last token.
        unsent: What waits to be sent.
    """

    next: int
    sent: int
    kept_from: int
    said: list[tuple[int, bytes]] = field(default_factory=list)
    unsent: list[Piece] = field(default_factory=list)


class Publisher:
    """The record of one exec and the chunks made of it.

    Args:
        attempt: The attempt it runs.
        exec_: Its number.
        starts: Per choice, the index of the first token it will generate.
        ready: Whether the gateway takes tokens with the client's message ready.
    """

    __slots__ = ("_attempt", "_exec", "_ready", "lanes")

    def __init__(
        self, attempt: int, exec_: int, starts: Sequence[int], *, ready: bool = False
    ) -> None:
        self._attempt = attempt
        self._exec = exec_
        self._ready = ready and not attempt
        self.lanes = tuple([Lane(start, start, start) for start in starts])

    @property
    def choices(self) -> int:
        """How many choices it has."""
        return len(self.lanes)

    @property
    def totals(self) -> tuple[int, ...]:
        """Per choice, the index after the last token sent."""
        return tuple(lane.sent for lane in self.lanes)

    @property
    def kept(self) -> int:
        """Tokens in the record."""
        return sum([lane.next - lane.kept_from for lane in self.lanes])

    def say(
        self, choice: int, ids: list[int], text: str, ends: list[int], logprobs: list[Any] | None
    ) -> bytes:
        """Take the next tokens of a choice, and encode them alone: nothing of it waits."""
        lane = self.lanes[choice]
        start = lane.next
        chunk = self._encode(choice, start, ids, text, ends, logprobs)
        lane.next = lane.sent = stop = start + len(ids)
        lane.said.append((stop, chunk))
        return chunk

    def add(
        self, choice: int, ids: list[int], text: str, ends: list[int], logprobs: list[Any] | None
    ) -> None:
        """Take the next tokens of a choice, and the lists that hold them: they may grow here."""
        lane = self.lanes[choice]
        start = lane.next
        lane.next = stop = start + len(ids)
        if lane.unsent:
            last = lane.unsent[-1]
            if stop - last.index <= MOST_TOKENS:
                last.extend(ids, text, ends, logprobs)
                return
        lane.unsent.append(Piece(start, stop, ids, text, ends, logprobs))

    def flush(self) -> list[bytes]:
        """Encode what was added and not yet sent, one chunk a choice (more where it is long)."""
        frames = []
        for choice, lane in enumerate(self.lanes):
            if lane.unsent:
                for piece in lane.unsent:
                    chunk = self._encode_piece(choice, piece)
                    lane.said.append((piece.stop, chunk))
                    frames.append(chunk)
                lane.unsent.clear()
                lane.sent = lane.next
        return frames

    def resend(self, choice: int, index: int) -> list[bytes]:
        """Encode again what was sent of a choice from `index` on, as far as it is kept."""
        if not 0 <= choice < len(self.lanes):
            return []
        again = [chunk for stop, chunk in self.lanes[choice].said if stop > index]
        return [self._encode_piece(choice, piece) for piece in _joined(again)]

    def acknowledge(self, frontiers: Sequence[int]) -> int:
        """Forget what the gateway has; returns how many tokens that were."""
        freed = 0
        for lane, frontier in zip(self.lanes, frontiers, strict=False):
            had = bisect_right(lane.said, frontier, key=_stop)
            if had:
                kept_from = lane.said[had - 1][0]
                freed += kept_from - lane.kept_from
                lane.kept_from = kept_from
                del lane.said[:had]
        return freed

    def _encode_piece(self, choice: int, piece: Piece) -> bytes:
        return self._encode(choice, piece.index, piece.ids, piece.text, piece.ends, piece.logprobs)

    def _encode(
        self, choice: int, index: int, ids: list[int], text: str, ends: list[int],
        logprobs: list[Any] | None,
    ) -> bytes:  # fmt: skip
        alone = len(ids) == 1
        if alone and self._ready and index and not choice and logprobs is None:
            token = wire.encode_token(self._exec, index, ids[0], text)
            if token is not None:
                return token
        return wire.encode_chunk(
            self._attempt, self._exec, index, ids, text, None if alone else ends, choice, logprobs
        )


def _joined(chunks: Sequence[bytes]) -> list[Piece]:
    """Adjoining chunks as few pieces, of at most `MOST_TOKENS` tokens each."""
    joined: list[Piece] = []
    for data in chunks:
        chunk = wire.decode(data)
        assert isinstance(chunk, wire.Chunk)
        ids, text = [*chunk.token_ids], chunk.text
        ends = [len(text)] if chunk.ends is None else [*chunk.ends]
        logprobs = None if chunk.logprobs is None else [*chunk.logprobs]
        if joined and chunk.stop - joined[-1].index <= MOST_TOKENS:
            joined[-1].extend(ids, text, ends, logprobs)
        else:
            joined.append(Piece(chunk.index, chunk.stop, ids, text, ends, logprobs))
    return joined
