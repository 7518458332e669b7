"""What every engine does, as a suite to inherit: give it a `subject` fixture.

A subclass may skip what its engine does not claim in `ModelCard.features`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from shared.errors import InvalidRequest, MillstreamError
from shared.wire import Message, Sampling, TokenLogprobs
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


class EngineContract:
    """The suite."""

    @pytest.fixture
    async def driver(self, subject: Subject) -> AsyncIterator[Driver]:
        driver = Driver(subject)
        await driver.engine.start(driver.take, driver.deaths.append)
        yield driver
        await driver.engine.close()
        assert not driver.deaths

    async def test_outputs_add_up_to_the_answer(self, driver: Driver) -> None:
        answer = await driver.run()
        choice = answer.choices[0]
        assert len(choice.ids) == choice.completion_tokens == GREEDY.max_tokens
        assert choice.finish == "length"
        assert answer.prompt_ids
        assert_text(choice.text, driver.decode(choice.ids))
        for count, text in enumerate(choice.after, 1):
            assert_text(text, driver.decode(choice.ids[:count]))

    async def test_neighbours_change_nothing(self, driver: Driver) -> None:
        alone = [await driver.one(prompt) for prompt in PROMPTS]
        together = [driver.submit(prompt) for prompt in PROMPTS]
        for before, job in zip(alone, together, strict=True):
            assert (await driver.end(job)).choices[0] == before

    async def test_jobs_join_and_leave_a_running_batch(self, driver: Driver) -> None:
        alone = [await driver.one(prompt) for prompt in PROMPTS]
        jobs = []
        for place in range(30):
            sampling = Sampling(max_tokens=3 + place % 7 * 3, temperature=0.0, ignore_eos=True)
            jobs.append(driver.submit(PROMPTS[place % len(PROMPTS)], sampling=sampling))
            if place % 3 == 0:
                await driver.answers[jobs[place // 2]].begun.wait()
        for place, job in enumerate(jobs):
            choice = (await driver.end(job)).choices[0]
            assert choice.ids == alone[place % len(PROMPTS)].ids[: 3 + place % 7 * 3]
        await driver.idle()
        assert driver.engine.observe().kv_used == 0

    async def test_token_ids_are_taken_as_they_are(self, driver: Driver) -> None:
        by_text = await driver.run()
        by_ids = await driver.run(token_ids=by_text.prompt_ids)
        assert by_ids.prompt_ids == by_text.prompt_ids
        assert by_ids.choices == by_text.choices

    async def test_messages_go_through_the_template(self, driver: Driver) -> None:
        driver.has("chat")
        answer = await driver.run(messages=(Message("user", "How are you?"),))
        assert answer.error is None
        assert "How are you?" in driver.decode(answer.prompt_ids or ())

    async def test_a_stop_string_ends_the_answer(self, driver: Driver) -> None:
        full = await driver.one()
        for start in range(0, len(full.text) - 2, 3):
            stop = full.text[start : start + 2]
            choice = await driver.one(sampling=changed(GREEDY, stop=(stop, "never said")))
            assert choice.text == full.text[: full.text.index(stop)]
            assert choice.finish == "stop"
            assert choice.ids == full.ids[: len(choice.ids)]
            said = next(k for k, text in enumerate(full.after, 1) if stop in text)
            assert choice.completion_tokens == said

    async def test_the_beginning_of_a_stop_string_is_not_lost(self, driver: Driver) -> None:
        full = await driver.one()
        stops = tuple(full.text[place : place + 4] + "\0" for place in range(len(full.text)))[:16]
        choice = await driver.one(sampling=changed(GREEDY, stop=stops))
        assert (choice.text, choice.ids, choice.finish) == (full.text, full.ids, "length")

    async def test_no_character_is_split(self, driver: Driver) -> None:
        driver.has("resume")
        if not driver.characters:
            pytest.skip("the vocabulary has no half characters")
        given = driver.characters
        text = driver.decode(given)
        assert "\ufffd" not in text
        for cut in range(len(given)):
            before = driver.decode(given[:cut]).rstrip("\ufffd")
            choice = await driver.one(
                delivered=(given[:cut],),
                sampling=changed(GREEDY, max_tokens=cut + 8, stop=("never said",)),
            )
            assert_text(before + choice.text, driver.decode([*given[:cut], *choice.ids]))

    async def test_a_seed_decides(self, driver: Driver) -> None:
        driver.has("seed")
        first = await driver.one(sampling=SEEDED)
        jobs = [driver.submit(sampling=changed(SEEDED, seed=seed)) for seed in (3, 11, 12, 13)]
        other, same, *rest = [(await driver.end(job)).choices[0] for job in jobs]
        assert same == first
        assert len({tuple(choice.ids) for choice in (first, other, *rest)}) == 4

    async def test_without_a_seed_answers_differ(self, driver: Driver) -> None:
        driver.has("seed")
        sampling = changed(SEEDED, seed=None)
        answers = [await driver.one(sampling=sampling) for _ in range(3)]
        assert len({tuple(choice.ids) for choice in answers}) == 3

    async def test_choices_are_answers_of_their_own(self, driver: Driver) -> None:
        driver.has("n")
        answer = await driver.run(sampling=changed(SEEDED, n=4))
        for number, choice in enumerate(answer.choices):
            assert len(choice.ids) == SEEDED.max_tokens
            assert_text(choice.text, driver.decode(choice.ids))
            assert choice == await driver.one(sampling=changed(SEEDED, seed=11 + number))

    async def test_logprobs(self, driver: Driver) -> None:
        driver.has("logprobs")
        choice = await driver.one(sampling=changed(GREEDY, logprobs=5))
        assert len(choice.logprobs) == len(choice.ids)
        for token, own in zip(choice.ids, choice.logprobs, strict=True):
            values = [value for _, _, value in own.top]
            assert len(values) == 5
            assert values == sorted(values, reverse=True)
            assert own.top[0][0] == token
            assert own.logprob == pytest.approx(values[0])
            assert own.logprob <= 0
        bare = await driver.one(sampling=changed(GREEDY, logprobs=0))
        assert [own.top for own in bare.logprobs] == [()] * len(bare.ids)
        held = await driver.one(sampling=changed(GREEDY, logprobs=2, stop=("never said",)))
        assert [own.logprob for own in held.logprobs] == [own.logprob for own in bare.logprobs]

    @pytest.mark.parametrize("name", ["greedy", "seeded", "penalised", "stopped"])
    async def test_a_continuation_is_the_rest(self, driver: Driver, name: str) -> None:
        driver.has("resume")
        sampling = {
            "greedy": GREEDY,
            "seeded": SEEDED,
            "penalised": changed(SEEDED, frequency_penalty=0.5, repetition_penalty=1.3),
            "stopped": changed(GREEDY, stop=((await driver.one()).text[-3:],)),
        }[name]
        full = await driver.one(sampling=sampling)
        for cut in range(len(full.ids) + 1):
            rest = await driver.one(sampling=sampling, delivered=(tuple(full.ids[:cut]),))
            assert rest.ids == full.ids[cut:]
            assert (full.after[cut - 1] if cut else "") + rest.text == full.text
            assert rest.finish == full.finish
            assert rest.completion_tokens == full.completion_tokens

    async def test_a_continuation_of_several_choices(self, driver: Driver) -> None:
        driver.has("resume")
        driver.has("n")
        sampling = changed(SEEDED, n=3)
        full = (await driver.run(sampling=sampling)).choices
        cuts = (len(full[0].ids), 5, 0)
        delivered = tuple(tuple(each.ids[:cut]) for each, cut in zip(full, cuts, strict=True))
        answer = await driver.run(sampling=sampling, delivered=delivered)
        for whole, rest, cut in zip(full, answer.choices, cuts, strict=True):
            assert rest.ids == whole.ids[cut:]
            assert rest.finish == whole.finish
            assert rest.completion_tokens == whole.completion_tokens

    async def test_what_is_complete_ends_at_once(self, driver: Driver) -> None:
        driver.has("resume")
        full = await driver.one()
        rest = await driver.one(delivered=(tuple(full.ids),))
        assert (rest.ids, rest.text, rest.finish) == ([], "", "length")
        assert rest.completion_tokens == len(full.ids)

    async def test_an_aborted_job_is_silent(self, driver: Driver) -> None:
        long = changed(GREEDY, max_tokens=None)
        neighbour = driver.submit(PROMPTS[1])
        jobs = [driver.submit(sampling=changed(long, n=count)) for count in (1, 1, 1)]
        await driver.answers[jobs[0]].begun.wait()
        seen = []
        for job in jobs:
            driver.engine.abort(job)
            seen.append(driver.answers[job].outputs)
        assert (await driver.end(neighbour)).error is None
        await driver.idle()
        await driver.one()
        assert [driver.answers[job].outputs for job in jobs] == seen

    async def test_an_abort_takes_effect_within_a_step(self, driver: Driver) -> None:
        job = driver.submit(sampling=changed(GREEDY, max_tokens=None))
        await driver.answers[job].begun.wait()
        before = driver.engine.observe().steps
        driver.engine.abort(job)
        await driver.idle()
        # Two: one was under way, and one may have begun before this thread read the counter.
        assert driver.engine.observe().steps <= before + 2
        assert driver.engine.observe().kv_used == 0

    async def test_a_job_may_be_aborted_before_it_begins(self, driver: Driver) -> None:
        jobs = [driver.submit() for _ in range(5)]
        for job in jobs:
            driver.engine.abort(job)
            driver.engine.abort(job)
        driver.engine.abort(999)
        await driver.idle()
        await driver.one()
        assert not any(driver.answers[job].outputs for job in jobs)

    async def test_an_error_is_one_jobs_own(self, driver: Driver) -> None:
        before = await driver.one()
        good = driver.submit()
        size = driver.engine.card.vocab_size
        bad = [driver.submit(token_ids=(1, size)), driver.submit(token_ids=())]
        for job in bad:
            error = (await driver.end(job)).error
            assert isinstance(error, InvalidRequest)
            assert error.field == "token_ids"
        assert (await driver.end(good)).choices[0] == before

    async def test_what_exceeds_the_context_is_refused(self, driver: Driver) -> None:
        context = driver.engine.card.context_length
        error = (await driver.run(token_ids=(5,) * context)).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "token_ids"
        assert str(context) in error.message
        sampling = changed(GREEDY, max_tokens=context - 9)
        error = (await driver.run(token_ids=(5,) * 10, sampling=sampling)).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "sampling.max_tokens"
        assert str(context - 10) in error.message

    async def test_without_a_limit_an_answer_fills_the_context(self, driver: Driver) -> None:
        context = driver.engine.card.context_length
        sampling = changed(GREEDY, max_tokens=None)
        choice = await driver.one(token_ids=(5,) * 10, sampling=sampling)
        assert choice.completion_tokens == len(choice.ids) == context - 10
        assert choice.finish == "length"

    async def test_steps_are_counted(self, driver: Driver) -> None:
        before = driver.engine.observe().steps
        await driver.one()
        after = driver.engine.observe()
        assert GREEDY.max_tokens is not None
        assert after.steps >= before + GREEDY.max_tokens - 1
        assert after.step_seconds > 0


def changed(sampling: Sampling, **fields: Any) -> Sampling:
    """A copy with other values."""
    return replace(sampling, **fields)


def assert_text(text: str, decoded: str) -> None:
    """Check a text against the decoding of all tokens, which shows an unfinished character."""
    assert decoded.startswith(text)
    assert set(decoded[len(text) :]) <= {"\ufffd"}
