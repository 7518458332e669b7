"""From a job to what vLLM is asked: token ids and sampling parameters, one set a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from shared.errors import InvalidRequest
from shared.wire import Structured
from workers.engines.base import Job, Output
from workers.engines.reader import PromptReader
from workers.engines.text import Pieces, TextStream
from workers.engines.vllm.answers import Lane
from workers.engines.vllm.replay import KEY

_SEEDS = (1 << 64) - 1
_STRUCTURED = {"json_schema": "json", "regex": "regex", "grammar": "grammar"}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every request of a model.

    Attributes:
        sampling: The checkpoint's own temperature, top_p, top_k and min_p, as far as it has any.
        eos: The tokens that end an answer.
        context: Tokens of prompt and answer together, at most.
        slots: Choices that run at once, at most.
        exact: Whether vLLM can be made to say delivered tokens again (see `replay`).
        interval: Tokens that are told together.
    """

    sampling: Mapping[str, Any]
    eos: frozenset[int]
    context: int
    slots: int
    exact: bool
    interval: int = 1


@dataclass(frozen=True, slots=True)
class Ask:
    """One choice to ask vLLM for."""

    lane: Lane
    ids: list[int]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job ready to run.

    Attributes:
        prompt: Its token ids.
        asks: What to ask vLLM for.
        ended: Ends of choices that were complete as delivered.
    """

    prompt: list[int]
    asks: list[Ask]
    ended: list[Output]


class Preparer:
    """Turns jobs into what vLLM takes.

    Args:
        reader: Makes prompts token ids.
        pieces: The vocabulary.
        defaults: What holds for every request.
    """

    def __init__(self, reader: PromptReader, pieces: Pieces, defaults: Defaults) -> None:
        self._reader = reader
        self._pieces = pieces
        self._defaults = defaults

    def prepare(self, job: Job, ids: list[int]) -> Prepared:
        """Check, and replay what was delivered.

        Args:
            job: The job.
            ids: Its prompt, from the reader.

        Raises:
            InvalidRequest: What is wrong, with the field.
        """
        limit = self._reader.limit_of(job, len(ids))
        delivered = self._reader.delivered_of(job)
        sampling = job.sampling
        seed = sampling.seed
        prepared = Prepared(ids, [], [])
        for choice, given in enumerate(delivered):
            lane = Lane(
                job.id, choice, TextStream(self._pieces, sampling.stop), self._pieces,
                frozenset() if sampling.ignore_eos else self._defaults.eos, limit,
                sampling.logprobs, self._defaults.interval,
            )  # fmt: skip
            ended = lane.replay(given)
            if ended is not None:
                prepared.ended.append(ended)
                continue
            own = None if seed is None else (seed + choice) & _SEEDS
            prepared.asks.append(self._ask(job, lane, ids, list(given), own))
        return prepared

    def _ask(
        self, job: Job, lane: Lane, prompt: list[int], delivered: list[int], seed: int | None
    ) -> Ask:
        sampling = job.sampling
        again = bool(delivered) and self._defaults.exact and _depends(job)
        if delivered and not again:
            if job.structured is not None:
                raise InvalidRequest(
                    "an answer that is restricted to a form cannot be continued by this worker",
                    field="structured",
                )
            if seed is not None:  # The same seed again would draw the same noise as the beginning.
                seed = (seed + len(delivered) * 0x9E3779B97F4A7C15) & _SEEDS
        given = self._defaults.sampling
        params = SamplingParams(
            temperature=_or(sampling.temperature, given.get("temperature", 1.0)),
            top_p=_or(sampling.top_p, given.get("top_p", 1.0)),
            top_k=int(_or(sampling.top_k, given.get("top_k", 0))),
            min_p=_or(sampling.min_p, given.get("min_p", 0.0)),
            seed=seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logprobs=sampling.logprobs,
            ignore_eos=sampling.ignore_eos,
            max_tokens=lane.limit if again else lane.limit - len(delivered),
            structured_outputs=_structured(job.structured),
            detokenize=False,  # TextStream does it, exactly as on every other engine.
            output_kind=RequestOutputKind.DELTA,
            extra_args={KEY: delivered} if again else None,
            skip_clone=True,
        )
        if again:
            lane.replaying = delivered
        return Ask(lane, prompt if again else prompt + delivered, params)


def _depends(job: Job) -> bool:
    """Whether the next token depends on which tokens of the text are the answer's own."""
    sampling = job.sampling
    return bool(
        sampling.seed is not None
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or job.structured is not None
    )


def _structured(wanted: Structured | None) -> StructuredOutputsParams | None:
    if wanted is None:
        return None
    if wanted.kind == "choices":
        return StructuredOutputsParams(choice=list(wanted.choices))
    name = _STRUCTURED.get(wanted.kind)
    if name is None:
        raise InvalidRequest(
            f"structured.{wanted.kind} is not known: want json_schema, regex, choices or grammar",
            field="structured",
        )
    return StructuredOutputsParams(**{name: wanted.text})


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
