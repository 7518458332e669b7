"""An answer as a whole, for protocols that send it in one piece; and tokens with their own text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.ports import Summary, TextOnly
from shared.errors import MillstreamError


class Token(NamedTuple):
    """One token of an answer.

    Attributes:
        id: In the model's vocabulary.
        text: What it adds by itself.
        logprob: Its natural-log probability, or None where that was not asked for.
        top: The likeliest candidates, best first: (id, text, logprob).
    """

    id: int
    text: str
    logprob: float | None
    top: Sequence[tuple[int, str, float]]


def tokens_of(
    ids: Sequence[int], text: str, logprobs: Any, ends: Sequence[int] | None = None
) -> list[Token]:
    """Split a delta into its tokens.

    Where several tokens come without their `ends`, a token's text is that of the candidate of its
    id; what no candidate accounts for goes to the last token, so that the texts always join to
    the delta's.
    """
    entries = logprobs if logprobs is not None else [(None, ())] * len(ids)
    texts = _texts(ids, text, entries, ends)
    return [
        Token(token, own, logprob, top)
        for token, own, (logprob, top) in zip(ids, texts, entries, strict=True)
    ]


def _texts(
    ids: Sequence[int], text: str, entries: Sequence[Any], ends: Sequence[int] | None
) -> list[str]:
    if len(ids) == 1:
        return [text]
    if ends is not None:
        return [text[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    texts = []
    place = 0
    for token, (_, top) in zip(ids[:-1], entries, strict=False):
        own = next((known for other, known, _ in top if other == token), "")
        if not text.startswith(own, place):
            own = ""
        texts.append(own)
        place += len(own)
    return [*texts, text[place:]]


@dataclass(slots=True)
class Whole:
    """One choice of an answer."""

    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    reason: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


class Collected(TextOnly):
    """Keeps what sessions deliver until all of them have ended (a `ports.Outlet`).

    Args:
        choices: Over all sessions.
        sessions: How many.
        tokens: Keep the tokens one by one too.

    Attributes:
        choices: The choices so far; each session's follow those of the one before.
        summaries: Of the sessions that have ended.
    """

    def __init__(self, choices: int, sessions: int = 1, *, tokens: bool = False) -> None:
        self.choices = [Whole() for _ in range(choices)]
        self.summaries: list[Summary] = []
        self._sessions = sessions
        self._keep_tokens = tokens
        self._error: MillstreamError | None = None
        self._done = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Whether the client left before the end."""
        return len(self.summaries) < self._sessions

    async def run(self) -> None:
        """Wait for the end.

        Raises:
            MillstreamError: What a session failed with.
        """
        await self._done.wait()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """The client is gone: `run` returns."""
        self._done.set()

    def started(self, worker: str) -> None:
        """A worker took the request."""

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
        whole = self.choices[choice]
        whole.texts.append(text)
        whole.ids.extend(ids)
        if self._keep_tokens:
            whole.tokens.extend(tokens_of(ids, text, logprobs, ends))

    def finished(self, summary: Summary) -> None:
        """The only session has ended."""
        self.finish(0, summary)

    def finish(self, base: int, summary: Summary) -> None:
        """The session whose choices begin at `base` has ended."""
        for place, reason in enumerate(summary.reasons):
            self.choices[base + place].reason = reason
        self.summaries.append(summary)
        if not self.gone:
            self._done.set()

    def failed(self, error: MillstreamError) -> None:
        """A session failed, and so does the answer."""
        self._error = error
        self._done.set()
