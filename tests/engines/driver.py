"""Drives an engine through its interface, and checks what holds of every output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from shared.errors import MillstreamError
from shared.wire import Sampling, TokenLogprobs
from workers.engines.base import Engine, Job, Output

PATIENCE = 30.0
PROMPTS = ["The quick brown", "A stream is", "x", "Numbers such as 1, 22 and", "Ada, Grace and"]
GREEDY = Sampling(max_tokens=24, temperature=0.0, ignore_eos=True)
SEEDED = Sampling(max_tokens=24, temperature=0.9, top_p=0.95, top_k=50, seed=11, ignore_eos=True)


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine that is not started, and what to compare it with.

    Attributes:
        engine: With a context of 100 to 1000 tokens and room for 8 answers or more.
        decode: Ids to text, special tokens left out, U+FFFD for what is no character.
        characters: Ids of which the first ones only begin a character.
    """

    engine: Engine
    decode: Callable[[Sequence[int]], str]
    characters: tuple[int, ...] = ()


@dataclass(slots=True)
class Choice:
    """One answer as it came."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: str | None = None
    completion_tokens: int = 0
    after: list[str] = field(default_factory=list)  # the text after each token


@dataclass(slots=True)
class Answer:
    """A job's outputs, added up."""

    choices: list[Choice]
    prompt_ids: tuple[int, ...] | None = None
    error: MillstreamError | None = None
    outputs: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, output: Output) -> None:
        """Add an output, checking what holds of each."""
        choice = self.choices[output.choice]
        assert not self.ended.is_set(), "an output after the end"
        assert choice.finish is None, "an output after the choice's end"
        assert len(output.ends) == len(output.token_ids)
        assert output.ends == sorted(output.ends)
        assert (output.ends or [0])[-1] == len(output.text)
        assert (output.prompt_ids is not None) == (self.outputs == 0) or output.error is not None
        if output.logprobs is not None:
            assert len(output.logprobs) == len(output.token_ids)
            choice.logprobs += output.logprobs
        if output.prompt_ids is not None:
            self.prompt_ids = tuple(output.prompt_ids)
        self.outputs += 1
        choice.ids += output.token_ids
        choice.after += [choice.text + output.text[:end] for end in output.ends]
        choice.text += output.text
        choice.finish = output.finish
        choice.completion_tokens = output.completion_tokens
        self.error = output.error
        self.begun.set()
        if self.error is not None or all(each.finish for each in self.choices):
            self.ended.set()


class Driver:
    """A started engine and the answers it gives."""

    def __init__(self, subject: Subject) -> None:
        self.engine = subject.engine
        self.decode = subject.decode
        self.characters = subject.characters
        self.answers: dict[int, Answer] = {}
        self.deaths: list[MillstreamError] = []

    def take(self, outputs: Sequence[Output]) -> None:
        """Be the engine's sink."""
        assert outputs, "a step without outputs is not told"
        for output in outputs:
            self.answers[output.job].take(output)

    def submit(self, prompt: str | None = PROMPTS[0], **fields: Any) -> int:
        """Submit a job; returns its id."""
        job = Job(
            len(self.answers) + 1,
            None if fields.keys() & {"messages", "token_ids"} else prompt,
            fields.get("messages"),
            fields.get("token_ids"),
            fields.get("sampling", GREEDY),
            fields.get("delivered", ()),
            fields.get("urgency", 2),
        )
        self.answers[job.id] = Answer([Choice() for _ in range(job.sampling.n)])
        self.engine.submit(job)
        return job.id

    async def end(self, job: int) -> Answer:
        """Wait for a job's end."""
        answer = self.answers[job]
        await asyncio.wait_for(answer.ended.wait(), PATIENCE)
        return answer

    async def run(self, prompt: str | None = PROMPTS[0], **fields: Any) -> Answer:
        """Submit a job and wait for its end."""
        return await self.end(self.submit(prompt, **fields))

    async def one(self, prompt: str | None = PROMPTS[0], **fields: Any) -> Choice:
        """Submit a job of one choice, which must succeed."""
        answer = await self.run(prompt, **fields)
        assert answer.error is None, answer.error
        return answer.choices[0]

    async def idle(self) -> None:
        """Wait until nothing runs or waits."""
        for _ in range(int(PATIENCE * 1000)):
            seen = self.engine.observe()
            if not seen.running and not seen.waiting:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"still busy: {seen}")

    def has(self, feature: str) -> None:
        """Skip the test unless the engine claims a feature."""
        if feature not in self.engine.card.features:
            pytest.skip(f"the engine does not claim {feature}")


def changed(sampling: Sampling, **fields: Any) -> Sampling:
    """A copy with other values."""
    return replace(sampling, **fields)


def assert_text(text: str, decoded: str) -> None:
    """Check a text against the decoding of all tokens, which shows an unfinished character."""
    assert decoded.startswith(text)
    assert set(decoded[len(text) :]) <= {"\ufffd"}
