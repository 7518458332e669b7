"""How chat completions and completions differ in what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.collected import Token, Whole

LEAST_LOGPROB = -9999.0
"""What OpenAI says for minus infinity, which JSON has no word for."""


class ChatShape:
    """Chat completions."""

    kind = "chat.completion"
    stream_kind = "chat.completion.chunk"
    before_text = '"delta":{"content":'
    after_text = "}"
    first: str | None = '"delta":{"role":"assistant","content":""}'
    nothing = '"delta":{}'

    def whole(self, choice: Whole) -> dict[str, Any]:
        """The text of a whole choice."""
        return {"message": {"role": "assistant", "content": choice.text, "refusal": None}}

    def logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        """Log probabilities, an object a token."""
        content = [
            {
                **_said(token.text, token.logprob),
                "top_logprobs": [_said(text, own) for _, text, own in token.top],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionShape:
    """Completions."""

    kind = "text_completion"
    stream_kind = "text_completion"
    before_text = '"text":'
    after_text = ""
    first: str | None = None
    nothing = '"text":""'

    def whole(self, choice: Whole) -> dict[str, Any]:
        """The text of a whole choice."""
        return {"text": choice.text}

    def logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        """Log probabilities, a list a property."""
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [_number(token.logprob) for token in tokens],
            "top_logprobs": [
                {text: _number(own) for _, text, own in token.top} for token in tokens
            ],
            "text_offset": offsets,
        }


def _said(text: str, logprob: float | None) -> dict[str, Any]:
    data = list(text.encode("utf-8", "surrogatepass"))
    return {"token": text, "logprob": _number(logprob), "bytes": data}


def _number(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)
