"""What a client gets: plain, frozen values made from the protocol's messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from millstream.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

FinishReason: TypeAlias = Literal["stop", "length", "unspecified"]
ModelState: TypeAlias = Literal["loading", "ready", "failed", "unspecified"]


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted.

    Attributes:
        request_id: The one given, or the generated one.
        model: The model's served name.
        worker: The worker that answers first.
    """

    request_id: str
    model: str
    worker: str


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural-log probabilities at one position.

    Attributes:
        logprob: Of the chosen token.
        top: The likeliest candidates, best first: (token id, text, logprob).
    """

    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer.

    Attributes:
        index: Position of its first token in the answer, from 0, without a gap.
        text: The text it adds.
        token_ids: Its tokens.
        logprobs: One per token, where asked for.
        choice: Which of the n choices.
        attempt: How many failovers came before.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    choice: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt, of the answer, and of the prompt those found in a cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from acceptance until a worker took it, until the first token, until the end."""

    queue: float
    first_token: float
    total: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The generation is complete.

    Attributes:
        reason: Why it ended (of choice 0).
        usage: Tokens used.
        timing: Where the time went, as the gateway measured it.
        attempts: 1 plus the failovers.
        reasons: Of every choice.
    """

    reason: FinishReason
    usage: Usage
    timing: Timing
    attempts: int
    reasons: tuple[FinishReason, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    Attributes:
        text: Of choice 0.
        texts: Of every choice.
        token_ids: Of every choice.
        started: How it began.
        finished: How it ended.
    """

    text: str
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    started: Started
    finished: Finished


@dataclass(frozen=True, slots=True)
class Model:
    """What workers serve under one name.

    Attributes:
        engine: `app` for a function; what describes language models is then 0 or "".
        reason: Why it failed.
        service: The full name of a function's gRPC service; "" for a language model.
    """

    name: str
    engine: str
    context_length: int
    vocab_size: int
    dtype: str
    workers: int
    features: tuple[str, ...]
    state: ModelState
    reason: str = ""
    service: str = ""


def started_of(message: pb.Started) -> Started:
    """Turn the first message of a stream into a value."""
    return Started(message.request_id, message.model, message.worker)


def delta_of(message: pb.Delta) -> Delta:
    """Turn a piece of the answer into a value."""
    logprobs = tuple(
        TokenLogprobs(one.logprob, tuple((top.token_id, top.text, top.logprob) for top in one.top))
        for one in message.logprobs
    )
    return Delta(
        message.index,
        message.text,
        tuple(message.token_ids),
        logprobs,
        message.choice,
        message.attempt,
    )


def finished_of(message: pb.Finished) -> Finished:
    """Turn the last message of a stream into a value."""
    reason = _reason(message.reason)
    usage, timing = message.usage, message.timing
    return Finished(
        reason,
        Usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
        Timing(timing.queue, timing.first_token, timing.total),
        message.attempts,
        tuple(_reason(choice.reason) for choice in message.choices) or (reason,),
    )


def model_of(message: pb.Model) -> Model:
    """Turn a model's description into a value."""
    return Model(
        message.name,
        message.engine,
        message.context_length,
        message.vocab_size,
        message.dtype,
        message.workers,
        tuple(message.features),
        cast(ModelState, _name(pb.ModelState, message.state)),
        message.reason,
        message.service,
    )


def _reason(number: int) -> FinishReason:
    return cast(FinishReason, _name(pb.FinishReason, number))


def _name(enum: type[EnumTypeWrapper] | EnumTypeWrapper, number: int) -> str:
    """`FINISH_REASON_STOP` as `stop`; a value of a newer version as `unspecified`."""
    try:
        return str(enum.Name(number)).rsplit("_", 1)[1].lower()  # type: ignore[call-arg,arg-type]
    except ValueError:
        return "unspecified"
