"""From a client's message to a request that can be queued, or an error that names the field. Pure.

What only the model's tokenizer can tell (how long a prompt is in tokens) is the engine's to check;
its refusal comes back with the same status and field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from millstream.v1 import inference_pb2 as pb
from shared import features
from shared.errors import InvalidRequest, Unsupported
from shared.wire import Message, ModelCard, Sampling, Structured

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MOST_STOPS = 16
LONGEST_STOP = 256
MOST_LABELS = 16
LONGEST_LABEL_KEY = 64
LONGEST_LABEL = 256
MOST_CHOICES = 16
MOST_LOGPROBS = 20
MOST_MESSAGES = 1024

URGENCY: Mapping[int, int] = {
    pb.PRIORITY_INTERACTIVE: 1,
    pb.PRIORITY_UNSPECIFIED: 2,
    pb.PRIORITY_STANDARD: 2,
    pb.PRIORITY_BATCH: 3,
}

_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("temperature", 0.0, 2.0, "from 0 to 2"),
    ("min_p", 0.0, 1.0, "from 0 to 1"),
    ("presence_penalty", -2.0, 2.0, "from -2 to 2"),
    ("frequency_penalty", -2.0, 2.0, "from -2 to 2"),
)


def urgency(priority: int) -> int:
    """The class a request of a `Priority` queues in.

    Raises:
        InvalidRequest: A priority that is not known.
    """
    found = URGENCY.get(priority)
    if found is None:
        raise InvalidRequest(
            f"priority {priority} is not known: want INTERACTIVE, STANDARD or BATCH",
            field="priority",
        )
    return found


def check_request_id(value: str) -> None:
    """Refuse a request id that could not be a name.

    Raises:
        InvalidRequest: It is not 1 to 64 letters, digits, `_` and `-`.
    """
    if not REQUEST_ID.fullmatch(value):
        raise InvalidRequest(
            f"request_id {value[:80]!r} must be 1 to 64 letters, digits, '_' or '-'",
            field="request_id",
        )


def check_labels(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The labels, within bounds.

    Raises:
        InvalidRequest: Too many, or one too long.
    """
    if not given:
        return ()
    labels = tuple(sorted(given.items()))
    if len(labels) > MOST_LABELS:
        raise InvalidRequest(f"{len(labels)} labels: at most {MOST_LABELS}", field="labels")
    for key, value in labels:
        if not 0 < len(key) <= LONGEST_LABEL_KEY or len(value) > LONGEST_LABEL:
            raise InvalidRequest(
                f"label {key[:80]!r}: keys have 1 to {LONGEST_LABEL_KEY} characters, "
                f"values at most {LONGEST_LABEL}",
                field="labels",
            )
    return labels


def prompt_of(
    request: pb.GenerateRequest, card: ModelCard
) -> tuple[str | None, tuple[Message, ...] | None, tuple[int, ...] | None]:
    """The one input that is set: prompt, messages or token ids.

    Raises:
        InvalidRequest: None or several are set, or it is empty or not the model's.
    """
    given = []
    if request.HasField("prompt"):
        given.append("prompt")
    if request.messages:
        given.append("messages")
    if request.token_ids:
        given.append("token_ids")
    if len(given) != 1:
        raise InvalidRequest(
            f"exactly one of prompt, messages and token_ids must be set, not "
            f"{' and '.join(given) or 'none'}",
            field=given[-1] if given else "prompt",
        )
    if given[0] == "prompt":
        if not request.prompt:
            raise InvalidRequest("prompt is empty", field="prompt")
        return request.prompt, None, None
    if given[0] == "messages":
        return None, _messages(request, card), None
    return None, None, _token_ids(request, card)


def _messages(request: pb.GenerateRequest, card: ModelCard) -> tuple[Message, ...]:
    if features.CHAT not in card.features:
        raise InvalidRequest(
            f"model {card.name!r} has no chat template: send a prompt", field="messages"
        )
    if len(request.messages) > MOST_MESSAGES:
        raise InvalidRequest(
            f"{len(request.messages)} messages: at most {MOST_MESSAGES}", field="messages"
        )
    for place, turn in enumerate(request.messages):
        if not turn.role:
            raise InvalidRequest(
                f"messages[{place}].role is empty", field=f"messages[{place}].role"
            )
    if not any(turn.content for turn in request.messages):
        raise InvalidRequest("all messages are empty", field="messages")
    return tuple(Message(turn.role, turn.content) for turn in request.messages)


def _token_ids(request: pb.GenerateRequest, card: ModelCard) -> tuple[int, ...]:
    ids = tuple(request.token_ids)
    if len(ids) >= card.context_length:
        raise InvalidRequest(
            f"token_ids has {len(ids)} tokens and the context of {card.name!r} is "
            f"{card.context_length}: nothing could be generated",
            field="token_ids",
        )
    if max(ids) >= card.vocab_size:
        place, token = next((p, t) for p, t in enumerate(ids) if t >= card.vocab_size)
        raise InvalidRequest(
            f"token_ids[{place}] is {token} and the vocabulary of {card.name!r} ends at "
            f"{card.vocab_size - 1}",
            field="token_ids",
        )
    return ids


def sampling_of(request: pb.GenerateRequest, card: ModelCard, prompt_tokens: int) -> Sampling:
    """The sampling parameters, within their ranges and what the model's engine can do.

    Args:
        request: The client's message.
        card: The model.
        prompt_tokens: Tokens of the prompt as far as they are known, else 1.

    Raises:
        InvalidRequest: A value out of its range.
        Unsupported: A feature the engine does not have.
    """
    # All fields of the message are of the same name in `Sampling`, whose defaults are the unset.
    given = {field.name: value for field, value in request.sampling.ListFields()}
    for name, low, high, allowed in _RANGES:
        if name in given and not low <= given[name] <= high:  # NaN is outside of every range.
            _refuse(name, given[name], allowed)
    if "top_p" in given and not (0.0 < given["top_p"] <= 1.0):
        _refuse("top_p", given["top_p"], "above 0, up to 1")
    if "repetition_penalty" in given:
        penalty = given["repetition_penalty"]
        if not (penalty > 0.0 and math.isfinite(penalty)):
            _refuse("repetition_penalty", penalty, "above 0")
    if "logprobs" in given and given["logprobs"] > MOST_LOGPROBS:
        _refuse("logprobs", given["logprobs"], f"from 0 to {MOST_LOGPROBS}")
    if "n" in given and not 1 <= given["n"] <= MOST_CHOICES:
        _refuse("n", given["n"], f"from 1 to {MOST_CHOICES}")
    if "max_tokens" in given:
        room = card.context_length - prompt_tokens
        if not 1 <= given["max_tokens"] <= room:
            _refuse(
                "max_tokens", given["max_tokens"],
                f"from 1 to {room}, what the context of {card.context_length} leaves",
            )  # fmt: skip
    _features(request, card)
    if "stop" in given:
        given["stop"] = _stops(given["stop"])
    return Sampling(**given)


def structured_of(request: pb.GenerateRequest, card: ModelCard) -> Structured | None:
    """What the answer is restricted to, if anything.

    Raises:
        InvalidRequest: Nothing to restrict it to, or no choices.
        Unsupported: The engine cannot.
    """
    if not request.HasField("structured"):
        return None
    if features.STRUCTURED not in card.features:
        raise Unsupported(f"model {card.name!r} has no structured output", field="structured")
    kind = request.structured.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest(
            "structured is empty: want json_schema, regex, choices or grammar", field="structured"
        )
    if kind == "choices":
        choices = tuple(request.structured.choices.values)
        if not choices or not all(choices):
            raise InvalidRequest(
                "structured.choices needs at least one string, none empty",
                field="structured.choices",
            )
        return Structured(kind, "", choices)
    text = getattr(request.structured, kind)
    if not text:
        raise InvalidRequest(f"structured.{kind} is empty", field=f"structured.{kind}")
    if kind == "json_schema":
        _check_json(text)
    return Structured(kind, text)


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            f"structured.json_schema is no JSON: {error}", field="structured.json_schema"
        ) from None


def check_pace(request: pb.GenerateRequest) -> float | None:
    """The ceiling of tokens a second at which the stream is released, or None.

    Raises:
        InvalidRequest: It is below 0.1 or not a number.
    """
    if not request.HasField("pace"):
        return None
    if not (0.1 <= request.pace < math.inf):
        raise InvalidRequest(
            f"pace is {request.pace:g} tokens/s and must be at least 0.1", field="pace"
        )
    return request.pace


def _features(request: pb.GenerateRequest, card: ModelCard) -> None:
    given = request.sampling
    if given.n > 1 and features.CHOICES not in card.features:
        raise Unsupported(f"model {card.name!r} generates one choice only", field="sampling.n")
    if request.adapter and features.LORA not in card.features:
        raise Unsupported(f"model {card.name!r} has no adapters", field="adapter")
    if given.HasField("logprobs") and features.LOGPROBS not in card.features:
        raise Unsupported(
            f"model {card.name!r} gives no log probabilities", field="sampling.logprobs"
        )


def _stops(given: Iterable[str]) -> tuple[str, ...]:
    stops = tuple(given)
    if len(stops) > MOST_STOPS:
        raise InvalidRequest(
            f"sampling.stop has {len(stops)} strings: at most {MOST_STOPS}", field="sampling.stop"
        )
    for place, stop in enumerate(stops):
        if not 0 < len(stop) <= LONGEST_STOP:
            raise InvalidRequest(
                f"sampling.stop[{place}] has {len(stop)} characters: want 1 to {LONGEST_STOP}",
                field="sampling.stop",
            )
    return stops


def _refuse(name: str, value: float, allowed: str) -> None:
    raise InvalidRequest(
        f"sampling.{name} is {value:g} and must be {allowed}", field=f"sampling.{name}"
    )
