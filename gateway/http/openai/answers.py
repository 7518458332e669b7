"""What OpenAI's clients get: whole answers, and streams whose events are built by hand.

One event a delta, and of an event only the text is encoded anew: the rest is the same bytes for
all events of a choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.collected import Collected, Token, Whole, tokens_of
from gateway.http.errors import openai_body
from gateway.http.sse import SseOutlet, quote
from gateway.outlet import Flusher, Writer
from gateway.pieces import Piece
from gateway.ports import Summary
from shared.errors import MillstreamError


class Shape(Protocol):
    """How chat completions and completions differ."""

    kind: str
    """`object` of a whole answer."""
    stream_kind: str
    """`object` of an event."""
    before_text: str
    after_text: str
    """What stands around the text of an event."""
    first: str | None
    """The choice's own first event, between the same two, or None."""
    nothing: str
    """The same where there is no text any more."""

    def whole(self, choice: Whole) -> dict[str, Any]:
        """The text of a whole choice."""

    def logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        """Log probabilities; `offset` is where the tokens begin in the text."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in all events of an answer.

    Attributes:
        id: Of the answer.
        created: Seconds of the epoch.
        model: The served name.
        usage: End a stream with the token counts.
        running_usage: And say them in every event.
        logprobs: Of every token.
        token_ids: Give them too.
    """

    id: str
    created: int
    model: str
    usage: bool = False
    running_usage: bool = False
    logprobs: bool = False
    token_ids: bool = False


def usage_of(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Token counts."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def total(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Token counts of sessions that have ended."""
    return usage_of(
        sum(summary.prompt_tokens for summary in summaries),
        sum(summary.completion_tokens for summary in summaries),
        sum(summary.cached_tokens for summary in summaries),
    )


def whole_answer(shape: Shape, head: Head, collected: Collected) -> dict[str, Any]:
    """An answer in one piece."""
    choices = []
    for index, choice in enumerate(collected.choices):
        said = {
            "index": index,
            **shape.whole(choice),
            "logprobs": shape.logprobs(choice.tokens, 0) if head.logprobs else None,
            "finish_reason": choice.reason,
        }
        if head.token_ids:
            said["token_ids"] = choice.ids
        choices.append(said)
    return {
        "id": head.id,
        "object": shape.kind,
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": total(collected.summaries),
    }


class OpenAiStream(SseOutlet):
    """An answer as OpenAI's events.

    Args:
        writer: The response.
        flusher: Shared by all clients.
        overflowed: Called when the buffer is full.
        shape: Chat or not.
        head: The same in all events.
        choices: Over all sessions.
        sessions: How many.
    """

    __slots__ = (
        "_begun", "_head", "_heads", "_offsets", "_plain", "_prefix", "_shape", "_summaries",
        "_tail",
    )  # fmt: skip

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        *,
        shape: Shape,
        head: Head,
        choices: int,
        sessions: int,
    ) -> None:
        super().__init__(writer, flusher, overflowed, sessions)
        self._shape = shape
        self._head = head
        self._plain = not (head.logprobs or head.token_ids or head.running_usage)
        self._prefix = (
            f'data: {{"id":{quote(head.id)},"object":{quote(shape.stream_kind)},'
            f'"created":{head.created},"model":{quote(head.model)},"choices":['
        )
        self._heads = [
            f'{self._prefix}{{"index":{index},{shape.before_text}' for index in range(choices)
        ]
        usage = ',"usage":null' if head.usage else ""
        self._tail = f'{shape.after_text},"logprobs":null,"finish_reason":null}}]{usage}}}\n\n'
        self._begun = [False] * choices
        self._offsets = [0] * choices
        self._summaries: list[Summary] = []

    def on_piece(self, piece: Piece) -> None:
        """The next tokens."""
        if not piece.start:
            self._begin(piece.choice)
        if self._plain:
            self._put(f"{self._heads[piece.choice]}{quote(piece.text)}{self._tail}".encode())
        else:
            self._put_full(piece)

    def error_event(self, error: MillstreamError) -> bytes:
        """What the clients raise as an APIError."""
        return f"data: {json.dumps(openai_body(error))}\n\n".encode()

    def _put_full(self, piece: Piece) -> None:
        """The same with what was asked for beside the text."""
        _, ids, text, choice, _, logprobs, ends = piece
        said = None
        if self._head.logprobs:
            tokens = tokens_of(ids, text, logprobs, ends)
            said = self._shape.logprobs(tokens, self._offsets[choice])
            self._offsets[choice] += len(text)
        more = f',"token_ids":{json.dumps(list(ids))}' if self._head.token_ids else ""
        self._put_choice(choice, quote(text), json.dumps(said), "null", more)

    def _put_choice(
        self, choice: int, text: str, logprobs: str, reason: str, more: str = ""
    ) -> None:
        self._put(
            f'{self._heads[choice]}{text}{self._shape.after_text},"logprobs":{logprobs},'
            f'"finish_reason":{reason}{more}}}]{self._usage()}}}\n\n'.encode()
        )

    def _usage(self) -> str:
        if not self._head.running_usage:
            return ',"usage":null' if self._head.usage else ""
        begun = [session.answer.begun for session in self.sessions]
        prompt = sum([one.prompt_tokens for one in begun if one is not None])
        cached = sum([one.cached_tokens for one in begun if one is not None])
        return f',"usage":{json.dumps(usage_of(prompt, self.tokens, cached))}'

    def _begin(self, choice: int) -> None:
        if self._begun[choice]:
            return
        self._begun[choice] = True
        first = self._shape.first
        if first is not None:
            self._put(
                f'{self._prefix}{{"index":{choice},{first},"logprobs":null,"finish_reason":null}}]'
                f"{self._usage()}}}\n\n".encode()
            )

    def _close(self, base: int, summary: Summary) -> None:
        self._summaries.append(summary)
        for place, reason in enumerate(summary.reasons):
            self._begin(base + place)
            self._put(
                f'{self._prefix}{{"index":{base + place},{self._shape.nothing},"logprobs":null,'
                f'"finish_reason":{quote(reason)}}}]{self._usage()}}}\n\n'.encode()
            )

    def _last(self) -> None:
        if self._head.usage:
            # The prefix ends where the choices begin.
            usage = json.dumps(total(self._summaries))
            self._put(f'{self._prefix}],"usage":{usage}}}\n\n'.encode())
        self._put(b"data: [DONE]\n\n")
