"""What OpenAI's clients send, with the fields that vLLM and we added, as pydantic models.

A field that is not listed is accepted and ignored; docs/http.md says what happens to each.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Uint32 = Annotated[int, Field(ge=0, lt=1 << 32)]
TokenId = Uint32


class StreamOptions(BaseModel):
    """What a stream says beside the answer."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Generation(BaseModel):
    """What chat completions and completions share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = ""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Uint32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 32)] | None = None
    min_p: float | None = None
    n: Uint32 | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    priority: int | str | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    pace: float | None = None


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[str | dict[str, Any]] | None = None


class ChatRequest(Generation):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: Uint32 | None = None
    logprobs: bool | None = None
    top_logprobs: Uint32 | None = None


class CompletionRequest(Generation):
    """The body of /v1/completions; a list of prompts is answered side by side."""

    prompt: str | list[TokenId] | list[str] | list[list[TokenId]]
    logprobs: Uint32 | None = None
