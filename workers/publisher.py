"""What an exec says: chunks stamped with attempt and index, kept until the gateway has them. Pure.

Several tokens of one choice that come faster than `COALESCE` go out as one chunk; a token that
comes after a pause goes out at once, so pacing costs no latency.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import wire

MOST_TOKENS = 512


@dataclass(slots=True)
class Piece:
    """Tokens of one choice that travel together; `stop` is the index after the last."""

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
    """One choice: what is not yet acknowledged, and how much of it was sent."""

    next: int = 0
    sent: int = 0
    pieces: deque[Piece] = field(default_factory=deque)
    unsent: list[Piece] = field(default_factory=list)


class Publisher:
    """The record of one exec and the chunks made of it.

    Args:
        attempt: The attempt it runs.
        exec_: Its number.
        starts: Per choice, the index of the first token it will generate.
    """

    __slots__ = ("_attempt", "_exec", "lanes")

    def __init__(self, attempt: int, exec_: int, starts: Sequence[int]) -> None:
        self._attempt = attempt
        self._exec = exec_
        self.lanes = [Lane(next=start, sent=start) for start in starts]

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
        return sum(lane.next - lane.pieces[0].index for lane in self.lanes if lane.pieces)

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
        piece = Piece(start, stop, ids, text, ends, logprobs)
        lane.pieces.append(piece)
        lane.unsent.append(piece)

    def flush(self) -> list[bytes]:
        """Encode what was added and not yet sent, one chunk a choice (more where it is long)."""
        frames = []
        for choice, lane in enumerate(self.lanes):
            if lane.unsent:
                for piece in lane.unsent:
                    frames.append(self._encode(choice, piece))  # noqa: PERF401  # A call less.
                lane.unsent.clear()
                lane.sent = lane.next
        return frames

    def resend(self, choice: int, index: int) -> list[bytes]:
        """Encode again what was sent of a choice from `index` on, as far as it is kept."""
        if not 0 <= choice < len(self.lanes):
            return []
        lane = self.lanes[choice]
        again = [piece for piece in lane.pieces if piece.stop > index and piece.stop <= lane.sent]
        return [self._encode(choice, piece) for piece in _joined(again)]

    def acknowledge(self, frontiers: Sequence[int]) -> int:
        """Forget what the gateway has; returns how many tokens that were."""
        freed = 0
        for lane, frontier in zip(self.lanes, frontiers, strict=False):
            known = min(frontier, lane.sent)
            while lane.pieces and lane.pieces[0].stop <= known:
                freed += len(lane.pieces.popleft().ids)
        return freed

    def _encode(self, choice: int, piece: Piece) -> bytes:
        ends = None if len(piece.ids) == 1 else piece.ends
        return wire.encode_chunk(
            self._attempt, self._exec, piece.index, piece.ids, piece.text, ends, choice,
            piece.logprobs,
        )  # fmt: skip


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Adjoining pieces as few, of at most `MOST_TOKENS` tokens each; the given ones stay."""
    joined: list[Piece] = []
    for piece in pieces:
        ids, ends, logprobs = piece.ids, piece.ends, piece.logprobs
        if joined and piece.stop - joined[-1].index <= MOST_TOKENS:
            joined[-1].extend(ids, piece.text, ends, logprobs)
        else:
            own = None if logprobs is None else [*logprobs]
            joined.append(Piece(piece.index, piece.stop, [*ids], piece.text, [*ends], own))
    return joined
