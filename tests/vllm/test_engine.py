"""What the vLLM engine has beyond the contract."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.wire import Message, Sampling, Structured
from tests.engines.driver import GREEDY, PROMPTS, Driver, Subject, changed
from tests.vllm.shared import Relay, VllmDriver
from workers import bundled
from workers.engines.torch import TorchEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "mood": {"enum": ["good", "bad"]}},
    "required": ["ok", "mood"],
    "additionalProperties": False,
}
FORMS = {
    "json": Structured("json_schema", json.dumps(SCHEMA)),
    "regex": Structured("regex", "[a-c]{3}-[0-9]{2}"),
    "choices": Structured("choices", choices=("red", "green", "blue")),
    "grammar": Structured("grammar", 'root ::= "a" root | "b"'),
}
ENDING = Sampling(max_tokens=100, temperature=0.0)


async def test_greedy_answers_are_those_of_the_torch_engine(driver: VllmDriver) -> None:
    torch_engine = TorchEngine(
        str(bundled.PATH), served_name="tiny", dtype="float32", device="cpu", context_length=256
    )
    other = Driver(Subject(torch_engine, lambda _ids: ""))
    await torch_engine.start(other.take, other.deaths.append)
    try:
        chat = (Message("user", "Tell me of a river."),)
        sampling = Sampling(max_tokens=64, temperature=0.0)
        asked: tuple[dict[str, Any], ...] = (
            *({"prompt": prompt, "sampling": sampling} for prompt in PROMPTS),
            {"prompt": PROMPTS[1], "sampling": changed(sampling, ignore_eos=True)},
            {"prompt": PROMPTS[0], "sampling": changed(sampling, repetition_penalty=1.3)},
            {"prompt": PROMPTS[0], "sampling": changed(sampling, frequency_penalty=0.7)},
            {"prompt": PROMPTS[3], "sampling": changed(sampling, presence_penalty=1.1)},
            {"prompt": PROMPTS[2], "sampling": changed(sampling, stop=("the", " a"))},
            {"messages": chat, "sampling": sampling},
        )
        for fields in asked:
            ours, theirs = await driver.run(**fields), await other.run(**fields)
            assert ours.prompt_ids == theirs.prompt_ids
            assert ours.choices == theirs.choices
    finally:
        await torch_engine.close()


async def test_an_answer_has_the_form_that_is_asked_for(driver: VllmDriver) -> None:
    said = await driver.one(sampling=ENDING, structured=FORMS["json"])
    assert said.finish == "stop"
    assert set(json.loads(said.text)) == {"ok", "mood"}
    said = await driver.one(sampling=ENDING, structured=FORMS["regex"])
    assert re.fullmatch("[a-c]{3}-[0-9]{2}", said.text)
    said = await driver.one(sampling=ENDING, structured=FORMS["choices"])
    assert said.text in FORMS["choices"].choices
    said = await driver.one(sampling=ENDING, structured=FORMS["grammar"])
    assert re.fullmatch("a*b", said.text)


@pytest.mark.parametrize("form", ["json", "regex", "choices"])
async def test_a_form_is_kept_over_a_continuation(driver: VllmDriver, form: str) -> None:
    asked: dict[str, Any] = {"sampling": ENDING, "structured": FORMS[form]}
    full = await driver.one(**asked)
    for cut in range(len(full.ids) + 1):
        rest = await driver.one(**asked, delivered=(tuple(full.ids[:cut]),))
        assert rest.ids == full.ids[cut:]
        assert rest.finish == full.finish
        assert rest.completion_tokens == full.completion_tokens


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (Structured("json_schema", "{"), "structured.json_schema"),
        (Structured("regex", "[a"), "structured.regex"),
        (Structured("grammar", "root ::= nothing"), "structured.grammar"),
        (Structured("poem", "x"), "structured"),
    ],
)
async def test_a_form_that_is_none_is_refused(
    driver: VllmDriver, form: Structured, field: str
) -> None:
    neighbour = driver.submit(PROMPTS[1])
    error = (await driver.run(structured=form)).error
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert (await driver.end(neighbour)).error is None


async def test_a_prompt_seen_before_comes_from_the_cache(driver: VllmDriver) -> None:
    prompt = "The mill stands where the stream falls. " * 12
    first = await driver.run(prompt)
    again = await driver.run(prompt)
    assert again.choices == first.choices
    assert first.prompt_ids is not None
    assert driver.cached[1] == 0
    assert 16 <= driver.cached[2] < len(first.prompt_ids)


async def test_the_urgent_go_first(driver: VllmDriver) -> None:
    long = changed(GREEDY, max_tokens=60)
    jobs = [driver.submit(urgency=3, sampling=long) for _ in range(80)]
    urgent = driver.submit(urgency=1)
    for job in (*jobs, urgent):
        await driver.end(job)
    assert driver.begun.index(urgent) <= 2 * 32  # Of 80 the last asked for, and of 32 slots.


async def test_what_is_aborted_leaves_vllm_too(driver: VllmDriver, relay: Relay) -> None:
    long = changed(GREEDY, max_tokens=200)
    jobs = [driver.submit(sampling=long) for _ in range(8)]
    await driver.answers[jobs[-1]].begun.wait()
    for job in jobs:
        driver.engine.abort(job)
    await driver.one()
    await driver.one()
    assert relay.engine._steps.running <= 1
    assert not relay.engine._asked


async def test_an_adapter_that_is_not_loaded_is_refused(driver: VllmDriver) -> None:
    error = (await driver.run(adapter="poet")).error
    assert isinstance(error, InvalidRequest)
    assert error.field == "adapter"
    assert "'poet' is not loaded" in error.message


async def test_the_card(relay: Relay) -> None:
    card = relay.engine.card
    assert (card.name, card.engine, card.dtype) == ("tiny", "vllm", "float32")
    assert (card.context_length, card.max_batch) == (256, 32)
    assert {"chat", "logprobs", "n", "resume", "seed", "structured"} <= set(card.features)
    assert "lora" not in card.features
