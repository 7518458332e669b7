"""Requests that no gateway may take, and what it must say: one table for unit and e2e tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from millstream.v1 import inference_pb2 as pb

CONTEXT = 32768
VOCABULARY = 1 << 31


@dataclass(frozen=True)
class Bad:
    """One row.

    Attributes:
        name: What is wrong.
        request: The request.
        field: The field that the error must name.
        says: What its message must hold.
    """

    name: str
    request: pb.GenerateRequest
    field: str
    says: str


def request(**fields: object) -> pb.GenerateRequest:
    """A good request with some fields changed; `prompt=None` leaves the prompt out."""
    values: dict[str, object] = {"model": "sim", "prompt": "hi", **fields}
    return pb.GenerateRequest(**{k: v for k, v in values.items() if v is not None})  # type: ignore[arg-type]


def sampled(**fields: object) -> pb.GenerateRequest:
    """A good request with sampling parameters."""
    return request(sampling=pb.Sampling(**fields))  # type: ignore[arg-type]


TURN = pb.Message(role="user", content="hi")

ROWS = [
    Bad("empty prompt", request(prompt=""), "prompt", "empty"),
    Bad("no input", request(prompt=None), "prompt", "exactly one"),
    Bad("prompt and messages", request(messages=[TURN]), "messages", "prompt and messages"),
    Bad("prompt and ids", request(token_ids=[1]), "token_ids", "prompt and token_ids"),
    Bad(
        "messages and ids",
        request(prompt=None, messages=[TURN], token_ids=[1]),
        "token_ids",
        "messages and token_ids",
    ),
    Bad(
        "a turn without a role",
        request(prompt=None, messages=[pb.Message(content="hi")]),
        "messages[0].role",
        "empty",
    ),
    Bad(
        "turns without content",
        request(prompt=None, messages=[pb.Message(role="user")]),
        "messages",
        "empty",
    ),
    Bad("unknown priority", request(priority=99), "priority", "99"),
    Bad("temperature below 0", sampled(temperature=-0.5), "sampling.temperature", "-0.5"),
    Bad("temperature NaN", sampled(temperature=math.nan), "sampling.temperature", "nan"),
    Bad("temperature too high", sampled(temperature=2.5), "sampling.temperature", "2.5"),
    Bad("temperature infinite", sampled(temperature=math.inf), "sampling.temperature", "inf"),
    Bad("top_p 0", sampled(top_p=0.0), "sampling.top_p", "0"),
    Bad("top_p NaN", sampled(top_p=math.nan), "sampling.top_p", "nan"),
    Bad("top_p above 1", sampled(top_p=1.5), "sampling.top_p", "1.5"),
    Bad("min_p above 1", sampled(min_p=1.5), "sampling.min_p", "1.5"),
    Bad("presence", sampled(presence_penalty=-3), "sampling.presence_penalty", "-3"),
    Bad("frequency", sampled(frequency_penalty=3), "sampling.frequency_penalty", "3"),
    Bad("repetition 0", sampled(repetition_penalty=0), "sampling.repetition_penalty", "above 0"),
    Bad("logprobs", sampled(logprobs=21), "sampling.logprobs", "21"),
    Bad("n 0", sampled(n=0), "sampling.n", "from 1"),
    Bad("n too many", sampled(n=17), "sampling.n", "17"),
    Bad("max_tokens 0", sampled(max_tokens=0), "sampling.max_tokens", "from 1"),
    Bad("max_tokens beyond the context", sampled(max_tokens=CONTEXT), "sampling.max_tokens", "327"),
    Bad("an empty stop string", sampled(stop=["a", ""]), "sampling.stop", "stop[1]"),
    Bad("a long stop string", sampled(stop=["x" * 300]), "sampling.stop", "300"),
    Bad("many stop strings", sampled(stop=[str(i) for i in range(17)]), "sampling.stop", "17"),
    Bad(
        "an id outside the vocabulary",
        request(prompt=None, token_ids=[1, VOCABULARY]),
        "token_ids",
        str(VOCABULARY),
    ),
    Bad(
        "ids longer than the context",
        request(prompt=None, token_ids=[1] * CONTEXT),
        "token_ids",
        str(CONTEXT),
    ),
    Bad("a request_id with a space", request(request_id="a b"), "request_id", "'a b'"),
    Bad("a long request_id", request(request_id="x" * 65), "request_id", "64"),
    Bad("a pace too low", request(pace=0.0), "pace", "0.1"),
    Bad("a pace that is no number", request(pace=math.nan), "pace", "nan"),
    Bad("many labels", request(labels={str(i): "" for i in range(17)}), "labels", "17"),
    Bad("a long label", request(labels={"k": "v" * 300}), "labels", "256"),
]

ENGINE_ROWS = [
    Bad("a prompt longer than the context", request(prompt="x" * CONTEXT), "prompt", str(CONTEXT)),
    Bad(
        "prompt and max_tokens beyond the context",
        request(prompt="x" * 1000, sampling=pb.Sampling(max_tokens=CONTEXT - 500)),
        "sampling.max_tokens",
        "1000",
    ),
]
"""What only the engine's tokenizer can tell."""
