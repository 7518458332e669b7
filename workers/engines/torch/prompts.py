"""From a job to lanes: defaults, and the replay of delivered answers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from shared.wire import Sampling
from workers.engines.base import Job, Output
from workers.engines.reader import PromptReader
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
        reader: Makes prompts token ids.
        pieces: The vocabulary.
        defaults: For what a request leaves open.
    """

    def __init__(self, reader: PromptReader, pieces: Pieces, defaults: Defaults) -> None:
        self._reader = reader
        self._pieces = pieces
        self._defaults = defaults

    def prepare(self, job: Job) -> Prepared:
        """Tokenise, check, and replay.

        Raises:
            InvalidRequest: What is wrong, with the field.
        """
        prompt = self._reader.ids_of(job)
        limit = self._reader.limit_of(job, len(prompt))
        delivered = self._reader.delivered_of(job)
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


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
