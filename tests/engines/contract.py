"""What every engine does, as a suite to inherit: give it a `subject` fixture.

A subclass may skip what its engine does not claim in `ModelCard.features`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.errors import InvalidRequest
from shared.wire import Message, Sampling
from tests.engines.driver import GREEDY, PROMPTS, SEEDED, Driver, Subject, assert_text, changed


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
        driver.engine.abort(job)
        # Read after the abort: a thread that is put off in between would let other steps pass.
        before = driver.engine.observe().steps
        await driver.idle()
        # Two: one was under way, and one may not have been counted yet.
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
