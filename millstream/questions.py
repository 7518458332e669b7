"""What a client asks: keyword arguments as a `GenerateRequest`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

from millstream.v1 import inference_pb2 as pb
from shared.errors import InvalidRequest

Priority: TypeAlias = Literal["interactive", "standard", "batch"]
Turn: TypeAlias = Mapping[str, str] | tuple[str, str]

PRIORITIES: Mapping[str, pb.Priority] = {
    "interactive": pb.PRIORITY_INTERACTIVE,
    "standard": pb.PRIORITY_STANDARD,
    "batch": pb.PRIORITY_BATCH,
}


class Structured(TypedDict, total=False):
    """What may be generated; exactly one of these."""

    json_schema: str | Mapping[str, object]
    regex: str
    choices: Sequence[str]
    grammar: str


class Options(TypedDict, total=False):
    """How to sample and how to treat the request; what is left out takes the model's default.

    Each is the field of that name of `Sampling` or `GenerateRequest` in `inference.proto`.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: Sequence[str] | str
    seed: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logprobs: int
    ignore_eos: bool
    n: int
    priority: Priority
    request_id: str
    labels: Mapping[str, str]
    structured: Structured
    adapter: str
    pace: float


def question(
    model: str,
    prompt: str | None,
    messages: Iterable[Turn] | None,
    token_ids: Iterable[int] | None,
    options: Options,
) -> pb.GenerateRequest:
    """Build the request; whether it makes sense is for the gateway to say.

    Raises:
        InvalidRequest: A value that the message cannot hold, an unknown option or priority, or
            not exactly one of prompt, messages and token_ids.
    """
    given = [
        name
        for name, value in (("prompt", prompt), ("messages", messages), ("token_ids", token_ids))
        if value is not None
    ]
    if len(given) != 1:
        told = " and ".join(given) or "none"
        raise InvalidRequest(
            f"want exactly one of prompt, messages and token_ids, got {told}", field="input"
        )
    request = pb.GenerateRequest(model=model)
    with _Naming(given[0]):
        if prompt is not None:
            request.prompt = prompt
        elif messages is not None:
            request.messages.extend(_turn(one) for one in messages)
        elif token_ids is not None:
            request.token_ids.extend(token_ids)
    for name, value in options.items():
        if value is not None:
            with _Naming(name):
                _set(request, name, value)
    return request


def _set(request: pb.GenerateRequest, name: str, value: object) -> None:
    if name == "priority":
        if value not in PRIORITIES:
            raise ValueError(f"{value!r} is not one of {', '.join(PRIORITIES)}")
        request.priority = PRIORITIES[str(value)]
    elif name == "labels":
        request.labels.update(dict(value))  # type: ignore[call-overload]
    elif name in ("request_id", "adapter", "pace"):
        setattr(request, name, value)
    elif name == "structured":
        _restrict(request.structured, dict(value))  # type: ignore[call-overload]
    elif name == "stop":
        request.sampling.stop.extend([value] if isinstance(value, str) else value)  # type: ignore[arg-type]
    elif name in Options.__annotations__:
        setattr(request.sampling, name, value)
    else:
        raise TypeError("no such option")


def _restrict(structured: pb.Structured, given: dict[str, object]) -> None:
    if len(given) != 1:
        raise ValueError(f"want exactly one of {', '.join(Structured.__annotations__)}")
    ((kind, value),) = given.items()
    if kind == "choices":
        structured.choices.values.extend(value)  # type: ignore[arg-type]
    elif kind == "json_schema" and not isinstance(value, str):
        structured.json_schema = json.dumps(value)
    elif kind in Structured.__annotations__:
        setattr(structured, kind, value)
    else:
        raise ValueError(f"{kind!r} is not one of {', '.join(Structured.__annotations__)}")


def _turn(one: Turn) -> pb.Message:
    if isinstance(one, tuple):
        role, content = one
    else:
        role, content = one["role"], one["content"]
    return pb.Message(role=role, content=content)


class _Naming:
    """Turns what protobuf refuses into an error that names the field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TypeError | ValueError | KeyError):
            raise InvalidRequest(f"{self._field}: {error}", field=self._field) from error
