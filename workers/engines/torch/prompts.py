"""From a job to lanes: tokenising, defaults, limits, and the replay of delivered answers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from shared.errors import InvalidRequest
from shared.wire import Message, Sampling
from workers.engines.base import Job, Output
from workers.engines.text import Pieces, TextStream
from workers.engines.torch.config import Defaults
from workers.engines.torch.generation import Generation
from workers.engines.torch.params import Params


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job ready to run.

    Attributes:
        job: Its id.
        lanes: What to schedule; choices that begin alike are forks of the first.
        outputs: Ends of choices that were complete as delivered.
    """

    job: int
    lanes: list[Generation]
    outputs: list[Output]


class Preparer:
    """Turns jobs into lanes.

    Args:
        tokenizer: As transformers loads it.
        pieces: The vocabulary.
        defaults: For what a request leaves open.
        context: Tokens of prompt and answer together, at most.
        slots: Choices that run at once, at most.
    """

    def __init__(
        self, tokenizer: Any, pieces: Pieces, defaults: Defaults, context: int, slots: int
    ) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._defaults = defaults
        self._context = context
        self._slots = slots

    def prepare(self, job: Job) -> Prepared:
        """Tokenise, check, and replay.

        Raises:
            InvalidRequest: What is wrong, with the field.
        """
        prompt = self._prompt(job)
        limit = self._limit(job.sampling, len(prompt))
        self._check_choices(job)
        delivered = [*job.delivered, *[()] * (job.sampling.n - len(job.delivered))]
        seed = job.sampling.seed
        seed = secrets.randbits(63) if seed is None else seed
        lanes: list[Generation] = []
        outputs: list[Output] = []
        for choice, ids in enumerate(delivered):
            lane = self._lane(job, choice, prompt, seed + choice, limit)
            lane.announces = not lanes and not outputs
            done = lane.replay(ids)
            if done is None:
                lanes.append(lane)
            else:
                outputs.append(done)
        if lanes and not any(delivered):
            lanes[0].forks = lanes[1:]
            lanes = lanes[:1]
        return Prepared(job.id, lanes, outputs)

    def _lane(self, job: Job, choice: int, prompt: list[int], seed: int, limit: int) -> Generation:
        sampling = job.sampling
        return Generation(
            job=job.id,
            size=len(prompt),
            urgency=job.urgency,
            choice=choice,
            prompt=prompt,
            params=self._params(sampling, seed),
            pieces=self._pieces,
            stream=TextStream(self._pieces, sampling.stop),
            eos=frozenset() if sampling.ignore_eos else self._defaults.eos,
            limit=limit,
        )

    def _params(self, sampling: Sampling, seed: int) -> Params:
        defaults = self._defaults
        return Params(
            temperature=_or(sampling.temperature, defaults.temperature),
            top_p=_or(sampling.top_p, defaults.top_p),
            top_k=int(_or(sampling.top_k, defaults.top_k)),
            min_p=_or(sampling.min_p, defaults.min_p),
            seed=seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logprobs=sampling.logprobs,
        )

    def _prompt(self, job: Job) -> list[int]:
        if job.token_ids is not None:
            self._check_ids(job.token_ids, "token_ids")
            return self._check_length(list(job.token_ids), "token_ids")
        if job.messages is not None:
            text = self._render(job.messages)
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            return self._check_length(ids, "messages")
        return self._check_length(self._tokenizer.encode(job.prompt or ""), "prompt")

    def _render(self, messages: Sequence[Message]) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidRequest(
                "the model has no chat template: send a prompt instead", field="messages"
            )
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", field="messages"
            ) from error

    def _check_ids(self, ids: Sequence[int], field: str) -> None:
        size = len(self._pieces)
        for token in ids:
            if not 0 <= token < size:
                raise InvalidRequest(
                    f"token id {token} is not in the vocabulary of {size}", field=field
                )

    def _check_length(self, ids: list[int], field: str) -> list[int]:
        if not ids:
            raise InvalidRequest("the prompt has no tokens", field=field)
        if len(ids) >= self._context:
            raise InvalidRequest(
                f"the prompt has {len(ids)} tokens; with a context of {self._context} it may "
                f"have {self._context - 1}",
                field=field,
            )
        return ids

    def _limit(self, sampling: Sampling, prompt: int) -> int:
        room = self._context - prompt
        if sampling.max_tokens is None:
            return room
        if sampling.max_tokens > room:
            raise InvalidRequest(
                f"prompt of {prompt} tokens + max_tokens {sampling.max_tokens} > context of "
                f"{self._context}: ask for at most {room}",
                field="sampling.max_tokens",
            )
        return sampling.max_tokens

    def _check_choices(self, job: Job) -> None:
        if job.sampling.n > self._slots:
            raise InvalidRequest(
                f"n {job.sampling.n} is more than the {self._slots} choices run at once",
                field="sampling.n",
            )
        if len(job.delivered) > job.sampling.n:
            raise InvalidRequest(
                f"{len(job.delivered)} delivered answers for n {job.sampling.n}",
                field="sampling.n",
            )
        for ids in job.delivered:
            self._check_ids(ids, "delivered")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
