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
    """Tokens of one choice that were given to the publisher together."""

    index: int
    ids: list[int]
    text: str
    ends: list[int]
    logprobs: list[Any] | None

    @property
    def stop(self) -> int:
        """The index after the last token."""
        return self.index + len(self.ids)


@dataclass(slots=True)
class Lane:
    """One choice: what is not yet acknowledged, and how much of it was sent."""

    next: int = 0
    sent: int = 0
    pieces: deque[Piece] = field(default_factory=deque)
    unsent: deque[Piece] = field(default_factory=deque)


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
        """Take the next tokens of a choice."""
        lane = self.lanes[choice]
        piece = Piece(lane.next, ids, text, ends, logprobs)
        lane.next += len(ids)
        lane.pieces.append(piece)
        lane.unsent.append(piece)

    def flush(self) -> list[bytes]:
        """Encode what was added and not yet sent, one chunk a choice (more where it is long)."""
        frames = []
        for choice, lane in enumerate(self.lanes):
            unsent = lane.unsent
            if len(unsent) == 1:
                frames.append(self._encode(choice, unsent.pop()))
            elif unsent:
                frames.extend(self._encode(choice, piece) for piece in _joined(unsent))
                unsent.clear()
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


def _joined(pieces: Sequence[Piece] | deque[Piece]) -> list[Piece]:
    """Adjoining pieces as few, of at most `MOST_TOKENS` tokens each."""
    joined: list[Piece] = []
    texts: list[str] = []
    length = 0
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is None or len(last.ids) + len(piece.ids) > MOST_TOKENS or last.stop != piece.index:
            if last is not None:
                last.text = "".join(texts)
            logprobs = list(piece.logprobs) if piece.logprobs is not None else None
            joined.append(Piece(piece.index, list(piece.ids), "", list(piece.ends), logprobs))
            texts, length = [piece.text], len(piece.text)
            continue
        last.ids.extend(piece.ids)
        last.ends.extend([end + length for end in piece.ends])
        if last.logprobs is not None and piece.logprobs is not None:
            last.logprobs.extend(piece.logprobs)
        texts.append(piece.text)
        length += len(piece.text)
    if joined:
        joined[-1].text = "".join(texts)
    return joined
