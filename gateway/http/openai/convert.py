"""From an OpenAI body to the gateway's own requests: what is honoured and what refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.http.openai.requests import ChatMessage, ChatRequest, CompletionRequest, Generation
from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest, Unsupported

MOST_PROMPTS = 128
DEFAULT_COMPLETION_TOKENS = 16
"""What OpenAI documents for /v1/completions; chat runs to the model's own end."""

_SAME = (
    "temperature",
    "top_p",
    "min_p",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
)
"""Fields that `Sampling` has under the same name."""

_PRIORITIES = {
    "interactive": pb.PRIORITY_INTERACTIVE,
    "standard": pb.PRIORITY_STANDARD,
    "batch": pb.PRIORITY_BATCH,
}

REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 0, 1),
    "echo": (None, False),
    "functions": (None, []),
    "include_stop_str_in_output": (None, False),
    "logit_bias": (None, {}),
    "min_tokens": (None, 0),
    "modalities": (None, [], ["text"]),
    "prompt_logprobs": (None,),
    "stop_token_ids": (None, []),
    "suffix": (None, ""),
    "tools": (None, []),
}
"""Fields that would change the answer and cannot be honoured, with the values that ask nothing."""


def names(body: Generation) -> dict[str, str]:
    """What this protocol calls the fields of `GenerateRequest`."""
    told = {"structured": "response_format" if body.response_format else "structured_outputs"}
    for kind in ("json_schema", "regex", "choices", "grammar"):
        told[f"structured.{kind}"] = told["structured"]
    told["token_ids"] = "prompt"
    if isinstance(body, ChatRequest):
        told["prompt"] = "messages"
        told["sampling.logprobs"] = "top_logprobs" if body.top_logprobs else "logprobs"
        if body.max_completion_tokens is not None:
            told["sampling.max_tokens"] = "max_completion_tokens"
    return told


def chat_request(body: ChatRequest) -> pb.GenerateRequest:
    """A conversation.

    Raises:
        InvalidRequest: A field that makes no sense.
        Unsupported: One that cannot be honoured.
    """
    message = _request(body)
    sampling = message.sampling
    for place, turn in enumerate(body.messages):
        # What OpenAI renamed to developer is what chat templates know as system.
        role = "system" if turn.role == "developer" else turn.role
        message.messages.add(role=role, content=_content(turn, place))
    if not body.messages:
        raise InvalidRequest("messages is empty", field="messages")
    most = body.max_completion_tokens
    if most is None:
        most = body.max_tokens
    if most is not None:
        sampling.max_tokens = most
    if body.logprobs:
        sampling.logprobs = body.top_logprobs or 0
    elif body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", field="top_logprobs")
    return message


def completion_requests(body: CompletionRequest) -> list[pb.GenerateRequest]:
    """One request a prompt.

    Raises:
        InvalidRequest: A field that makes no sense.
        Unsupported: One that cannot be honoured.
    """
    shared = _request(body)
    most = body.max_tokens
    shared.sampling.max_tokens = DEFAULT_COMPLETION_TOKENS if most is None else most
    if body.logprobs is not None:
        shared.sampling.logprobs = body.logprobs
    prompts = _prompts(body.prompt)
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise InvalidRequest(
            f"prompt has {len(prompts)} prompts: want 1 to {MOST_PROMPTS}", field="prompt"
        )
    requests = []
    for prompt in prompts:
        request = pb.GenerateRequest()
        request.CopyFrom(shared)
        if isinstance(prompt, str):
            request.prompt = prompt
        elif prompt:
            request.token_ids.extend(prompt)
        else:
            raise InvalidRequest("prompt is empty", field="prompt")
        requests.append(request)
    return requests


def _prompts(given: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    ids = [item for item in given if isinstance(item, int)]
    if ids:
        return [ids]
    return [item for item in given if not isinstance(item, int)]


def _request(body: Generation) -> pb.GenerateRequest:
    _refuse(body)
    message = pb.GenerateRequest(model=body.model or "", priority=_priority(body.priority))
    sampling = message.sampling
    for name in _SAME:
        value = getattr(body, name)
        if value is not None:
            setattr(sampling, name, value)
    if body.top_k is not None:
        sampling.top_k = max(body.top_k, 0)  # vLLM's -1 is all, as 0 is.
    if body.seed is not None:
        sampling.seed = body.seed % (1 << 64)
    if body.stop is not None:
        sampling.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    if body.pace is not None:
        message.pace = body.pace
    _structured(body, message)
    return message


def _refuse(body: Generation) -> None:
    given = body.model_extra or {}
    for name, harmless in REFUSED.items():
        if name not in given or given[name] in harmless:
            continue
        if name == "min_tokens" and body.ignore_eos:
            continue  # It then runs to max_tokens whatever the least is.
        raise Unsupported(f"{name} is not supported: leave it out", field=name)


def _priority(value: int | str | None) -> pb.Priority:
    """The class: by its name, or vLLM's number, where a lower one is more urgent."""
    if isinstance(value, str):
        if value not in _PRIORITIES:
            raise InvalidRequest(
                f"priority {value[:80]!r} is not known: want {', '.join(_PRIORITIES)} or a number",
                field="priority",
            )
        return _PRIORITIES[value]
    if not value:
        return pb.PRIORITY_UNSPECIFIED
    return pb.PRIORITY_INTERACTIVE if value < 0 else pb.PRIORITY_BATCH


def _content(turn: ChatMessage, place: int) -> str:
    if turn.content is None or isinstance(turn.content, str):
        return turn.content or ""
    texts = []
    for number, part in enumerate(turn.content):
        if isinstance(part, str):
            texts.append(part)
            continue
        text = part.get("text")
        if part.get("type") not in ("text", "input_text") or not isinstance(text, str):
            raise InvalidRequest(
                f"messages[{place}].content[{number}] is no text: only text is understood here",
                field=f"messages[{place}].content[{number}]",
            )
        texts.append(text)
    return "\n".join(texts)


def _structured(body: Generation, message: pb.GenerateRequest) -> None:
    if body.response_format is not None:
        _response_format(body.response_format, message)
    given = body.structured_outputs
    if not given:
        return
    kinds = [kind for kind in ("json", "regex", "choice", "grammar") if given.get(kind) is not None]
    if len(kinds) != 1 or message.HasField("structured"):
        raise InvalidRequest(
            "structured_outputs needs exactly one of json, regex, choice and grammar, and no "
            "response_format beside it",
            field="structured_outputs",
        )
    (kind,) = kinds
    value = given[kind]
    if kind == "json":
        message.structured.json_schema = value if isinstance(value, str) else json.dumps(value)
    elif kind == "choice":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidRequest(
                "structured_outputs.choice must be a list of strings", field="structured_outputs"
            )
        message.structured.choices.values.extend(value)
    elif isinstance(value, str):
        setattr(message.structured, kind, value)
    else:
        raise InvalidRequest(
            f"structured_outputs.{kind} must be a string", field="structured_outputs"
        )


def _response_format(given: dict[str, Any], message: pb.GenerateRequest) -> None:
    kind = given.get("type")
    if kind == "json_schema":
        holder = given.get("json_schema")
        schema = holder.get("schema") if isinstance(holder, dict) else None
        if not isinstance(schema, dict):
            raise InvalidRequest(
                "response_format.json_schema.schema must be an object",
                field="response_format.json_schema",
            )
        message.structured.json_schema = json.dumps(schema)
    elif kind == "json_object":
        message.structured.json_schema = '{"type": "object"}'
    elif kind != "text":
        raise InvalidRequest(
            f"response_format.type is {str(kind)[:80]!r}: want text, json_object or json_schema",
            field="response_format.type",
        )
