"""The pieces of an answer, for the outlets of protocols that say them in their own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway.outlet import Buffered, Flusher, Writer
from shared.errors import MillstreamError


class Piece(NamedTuple):
    """What came of one choice at once.

    Attributes:
        start: Position of its first token in the answer.
        ids: Of its tokens, at least one.
        text: What they add.
        choice: Which choice of the answer.
        attempt: The attempt that made them.
        logprobs: An entry a token, or None where they were not asked for.
        ends: Where each token's text ends in `text`, or None where that is not known.
    """

    start: int
    ids: Sequence[int]
    text: str
    choice: int
    attempt: int
    logprobs: Any = None
    ends: Sequence[int] | None = None

    def split(self) -> list[Piece]:
        """A piece a token, where it is known which text is whose; else this one."""
        if len(self.ids) == 1 or self.ends is None:
            return [self]
        pieces = []
        begin = 0
        for place, (token, end) in enumerate(zip(self.ids, self.ends, strict=True)):
            own = None if self.logprobs is None else self.logprobs[place : place + 1]
            text = self.text[begin:end]
            pieces.append(Piece(self.start + place, (token,), text, self.choice, self.attempt, own))
            begin = end
        return pieces


class PieceOutlet(Buffered):
    """An outlet whose subclass says what becomes of a piece.

    Attributes:
        tokens: How many were delivered.
    """

    __slots__ = ("tokens",)

    def __init__(
        self, writer: Writer, flusher: Flusher, overflowed: Callable[[MillstreamError], None]
    ) -> None:
        super().__init__(writer, flusher, overflowed)
        self.tokens = 0

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        """The next tokens."""
        self.tokens += len(ids)
        self.on_piece(Piece(index, ids, text, choice, attempt, logprobs, ends))

    def on_piece(self, piece: Piece) -> None:
        """Say the next tokens."""
        raise NotImplementedError
