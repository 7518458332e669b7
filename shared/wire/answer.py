"""What execs say, on ms.rep.<gateway>.<request>: from the claim to the one terminal.

`Claim`, then, once it is bound, `Begun`, `Chunk`s or a function's `Parts`, and an end: `Done`,
`Failed` or `Released`. docs/protocol.md says who may speak when.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

BOOT_SHIFT = 31
"""An exec's number has its worker's boot number from this bit on, and a counter below it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker asks for the attempt it took; an exec's first words, repeated until answered.

    Attributes:
        attempt: Which attempt.
        exec: The exec's number: see `BOOT_SHIFT`.
        worker: The worker's id, which is its control subject.
        digest: The number of the worker's latest digest: every later one lists this exec.
    """

    attempt: int
    exec: int
    worker: str
    digest: int


@dataclass(frozen=True, slots=True)
class Begun:
    """The engine took the job.

    Attributes:
        attempt: Which attempt.
        exec: Who speaks.
        prompt_ids: The prompt's token ids, of `pack_ids`; a continuation starts from them.
        cached_tokens: Of them, how many a prefix cache held.
        fingerprint: Of the model that runs.
    """

    attempt: int
    exec: int
    prompt_ids: bytes
    cached_tokens: int
    fingerprint: str

    @property
    def prompt_tokens(self) -> int:
        """How many ids the prompt has."""
        return len(self.prompt_ids) // _ID_BYTES

    def ids(self) -> tuple[int, ...]:
        """The prompt's token ids.

        Raises:
            ValueError: The bytes end within one.
        """
        ids = array("I")
        ids.frombytes(self.prompt_ids)
        if sys.byteorder == "big":
            ids.byteswap()
        return tuple(ids)


_ID_BYTES = 4


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as `Begun` has them: little-endian uint32s, since a prompt may have very many."""
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probabilities at one position, as an engine gives them; a `Chunk` has them plain.

    Attributes:
        logprob: Of the chosen token.
        top: The likeliest candidates, best first: (token id, text, logprob).
    """

    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(slots=True)
class Chunk:
    """Tokens [index, index + len(token_ids)) of one choice.

    Not frozen, since building a frozen one takes three times as long and this is the hot path;
    nobody changes it.

    Attributes:
        attempt: Which attempt.
        exec: Who speaks.
        index: Position of the first token in the answer.
        token_ids: The tokens.
        text: Their text.
        ends: Where each token's text ends in `text`, in characters; None for a single token.
        choice: Which of the n choices.
        logprobs: (logprob, ((id, text, logprob), ...)) per token, or None.
    """

    attempt: int
    exec: int
    index: int
    token_ids: tuple[int, ...]
    text: str
    ends: tuple[int, ...] | None = None
    choice: int = 0
    logprobs: tuple[Any, ...] | None = None

    @property
    def stop(self) -> int:
        """The index after the last token."""
        return self.index + len(self.token_ids)

    def after(self, start: int) -> Chunk:
        """The part from index `start` on, which lies inside it."""
        skip = start - self.index
        if skip == 0:
            return self
        ends = self.ends or ()
        cut = ends[skip - 1]
        return Chunk(
            self.attempt, self.exec, start, self.token_ids[skip:], self.text[cut:],
            tuple([end - cut for end in ends[skip:]]), self.choice,
            self.logprobs[skip:] if self.logprobs is not None else None,
        )  # fmt: skip


LAST, MORE = 0, 1
"""First bytes of a part."""
PART_MOST = 2**18
"""Bytes of a part, at most."""
WINDOW = 2**20
"""Bytes of a function's items that its client has not taken, beyond which it yields no more."""
ITEM_OVERHEAD = 64
"""Bytes that an item counts beyond its own: a million empty ones are no small thing to keep."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts [index, index + len(parts)) of what a function returned or yielded.

    An item is a serialized response message, cut into parts of bounded size. The first byte of a
    part says whether the item goes on with the next one (`MORE`) or ends with it (`LAST`).

    Attributes:
        attempt: Which attempt.
        exec: Who speaks.
        index: Position of the first part in the answer.
        parts: At least one, none empty.
    """

    attempt: int
    exec: int
    index: int
    parts: tuple[bytes, ...]

    choice: ClassVar[int] = 0

    @property
    def stop(self) -> int:
        """The index after the last part."""
        return self.index + len(self.parts)

    def after(self, start: int) -> Parts:
        """The rest from index `start` on, which lies inside it."""
        return Parts(self.attempt, self.exec, start, self.parts[start - self.index :])


@dataclass(frozen=True, slots=True)
class Done:
    """Every choice is complete.

    Attributes:
        attempt: Which attempt.
        exec: Who speaks.
        totals: Per choice, how many tokens its chunks cover.
        reasons: Per choice, "stop" or "length".
        completion_tokens: Over all choices, matched stop strings included.
    """

    attempt: int
    exec: int
    totals: tuple[int, ...]
    reasons: tuple[str, ...]
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed for good in this exec; see `shared.errors`.

    Attributes:
        attempt: Which attempt.
        exec: Who speaks.
        kind: The error's class.
        message: What was wrong.
        field: The request field at fault, or "".
        retry_after: Seconds after which a retry may succeed, or None.
        code: The gRPC status number that a function raised, or 0.
        status: And the whole google.rpc.Status, serialized.
    """

    attempt: int
    exec: int
    kind: str
    message: str
    field: str = ""
    retry_after: float | None = None
    code: int = 0
    status: bytes = b""


@dataclass(frozen=True, slots=True)
class Released:
    """A draining worker gives the attempt back; not a death. Totals as in `Done`."""

    attempt: int
    exec: int
    totals: tuple[int, ...]
