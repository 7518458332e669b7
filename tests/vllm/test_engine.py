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


async def test_greedy_answers_are_those_of_the_torch_engine(listening: VllmDriver) -> None:
    torch_engine = TorchEngine(
        str(bundled.PATH), served_name="tiny", dtype="float32", device="cpu", context_length=256
    )
    other = Driver(Subject(torch_engine, lambda _ids: ""))
    await torch_engine.start(other.take, other.deaths.append)
    try:
        chat = (Message("user", "Tell me of a river."),)
        sampling = Sampling(max_tokens=64, temperature=0.0)
        for fields in (
            *({"prompt": prompt, "sampling": sampling} for prompt in PROMPTS),
            {"prompt": PROMPTS[1], "sampling": changed(sampling, ignore_eos=True)},
            {"prompt": PROMPTS[0], "sampling": changed(sampling, repetition_penalty=1.3)},
            {"prompt": PROMPTS[0], "sampling": changed(sampling, frequency_penalty=0.7)},
            {"prompt": PROMPTS[3], "sampling": changed(sampling, presence_penalty=1.1)},
            {"prompt": PROMPTS[2], "sampling": changed(sampling, stop=("the", " a"))},
            {"messages": chat, "sampling": sampling},
        ):
            ours, theirs = await listening.run(**fields), await other.run(**fields)
            assert ours.prompt_ids == theirs.prompt_ids
            assert ours.choices == theirs.choices
    finally:
        await torch_engine.close()


async def test_an_answer_has_the_form_that_is_asked_for(listening: VllmDriver) -> None:
    said = await listening.one(sampling=ENDING, structured=FORMS["json"])
    assert said.finish == "stop"
    assert set(json.loads(said.text)) == {"ok", "mood"}
    assert re.fullmatch("[a-c]{3}-[0-9]{2}", (await listening.one(sampling=ENDING, structured=FORMS["regex"])).text)
    assert (await listening.one(sampling=ENDING, structured=FORMS["choices"])).text in FORMS["choices"].choices
    assert re.fullmatch("a*b", (await listening.one(sampling=ENDING, structured=FORMS["grammar"])).text)


@pytest.mark.parametrize("form", ["json", "regex", "choices"])
async def test_a_form_is_kept_over_a_continuation(listening: VllmDriver, form: str) -> None:
    asked: dict[str, Any] = {"sampling": ENDING, "structured": FORMS[form]}
    full = await listening.one(**asked)
    for cut in range(len(full.ids) + 1):
        rest = await listening.one(**asked, delivered=(tuple(full.ids[:cut]),))
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
async def test_a_form_that_is_none_is_refused(listening: VllmDriver, form: Structured, field: str) -> None:
    neighbour = listening.submit(PROMPTS[1])
    error = (await listening.run(structured=form)).error
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert (await listening.end(neighbour)).error is None


async def test_a_prompt_seen_before_comes_from_the_cache(listening: VllmDriver) -> None:
    prompt = "The mill stands where the stream falls. " * 12
    first = await listening.run(prompt)
    again = await listening.run(prompt)
    assert again.choices == first.choices
    assert first.prompt_ids is not None
    assert listening.cached[1] == 0
    assert 16 <= listening.cached[2] < len(first.prompt_ids)


async def test_the_urgent_go_first(listening: VllmDriver) -> None:
    long = changed(GREEDY, max_tokens=60)
    jobs = [listening.submit(urgency=3, sampling=long) for _ in range(80)]
    urgent = listening.submit(urgency=1)
    for job in (*jobs, urgent):
        await listening.end(job)
    assert listening.begun.index(urgent) <= 2 * 32  # Of 80 the last asked for, and of 32 slots.


async def test_what_is_aborted_leaves_vllm_too(listening: VllmDriver, relay: Relay) -> None:
    long = changed(GREEDY, max_tokens=200)
    jobs = [listening.submit(sampling=long) for _ in range(8)]
    await listening.answers[jobs[-1]].begun.wait()
    for job in jobs:
        listening.engine.abort(job)
    await listening.one()
    await listening.one()
    assert relay.engine._steps.running <= 1
    assert relay.engine._llm.get_num_unfinished_requests() == 0


async def test_an_adapter_that_is_not_loaded_is_refused(listening: VllmDriver) -> None:
    error = (await listening.run(adapter="poet")).error
    assert isinstance(error, InvalidRequest)
    assert error.field == "adapter"
    assert "'poet' is not loaded" in error.message


async def test_the_card(relay: Relay) -> None:
    card = relay.engine.card
    assert (card.name, card.engine, card.dtype) == ("tiny", "vllm", "float32")
    assert (card.context_length, card.max_batch) == (256, 32)
    assert {"chat", "logprobs", "n", "resume", "seed", "structured"} <= set(card.features)
    assert "lora" not in card.features
