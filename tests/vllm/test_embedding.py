"""An embedding model on the real vLLM, as a function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared import typed
from shared.errors import EngineError, InvalidRequest
from shared.signature import Scalar, TensorType
from tests.vllm.embedding import DIMENSIONS, MODEL, TEXTS, Asking, cosine, expected, until
from tests.vllm.shared import SMALL, engine_processes, kill
from workers.engines.vllm import VllmModel
from workers.engines.vllm.embedding import EmbeddingEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOTS = 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking() -> AsyncIterator[Asking]:
    others = engine_processes()
    asking = Asking(VllmModel(MODEL, "mini", SMALL | {"max_num_seqs": str(SLOTS)}))
    await asking.engine.start(asking.take, asking.deaths.append)
    asking.processes = engine_processes() - others
    yield asking
    await asking.engine.close()


def inner(asking: Asking) -> EmbeddingEngine:
    engine = asking.engine._engine
    assert isinstance(engine, EmbeddingEngine)
    return engine


async def test_the_card_is_that_of_a_function(asking: Asking) -> None:
    card = asking.engine.card
    assert (card.name, card.engine, card.dtype) == ("mini@1", "vllm", "float32")
    assert (card.context_length, card.max_batch, card.vocab_size) == (256, SLOTS, 30522)
    assert set(card.features) == {"predict", "resume"}
    assert card.signature is not None
    signature = typed.load(card.signature)
    assert signature.output == TensorType("float32", (DIMENSIONS,))
    assert [(each.name, each.type) for each in signature.inputs.fields] == [
        ("text", Scalar("string"))
    ]
    assert asking.engine.room() is None


@pytest.mark.parametrize("text", TEXTS)
async def test_a_vector_is_the_one_transformers_computes(asking: Asking, text: str) -> None:
    assert cosine(await asking.vector(text), expected(text)) > 0.9999


async def test_many_run_together(asking: Asking) -> None:
    texts = [f"Text {number} {'of a stream ' * (number % 9)}" for number in range(120)]
    before = asking.engine.observe().steps
    jobs = [asking.submit(text) for text in texts]
    assert asking.engine.observe().running == len(jobs)
    outputs = [await asking.end(job) for job in jobs]
    assert 120 / SLOTS <= asking.engine.observe().steps - before < 60
    assert asking.engine.observe().running == 0
    for place in (0, 7, 50, 119):
        alone = await asking.end(asking.submit(texts[place]))
        assert cosine(asking.read(outputs[place]), asking.read(alone)) > 0.9999
        assert outputs[place].prompt_ids == alone.prompt_ids
        assert alone.prompt_ids is not None
        assert len(alone.prompt_ids) >= 4


async def test_what_is_wrong_is_that_texts_error(asking: Asking) -> None:
    neighbour = asking.submit(TEXTS[0])
    long = (await asking.end(asking.submit("stream " * 400))).error
    longer = (await asking.end(asking.submit("stream " * 40_000))).error
    nothing = (await asking.end(asking.submit(None))).error
    for error in (long, longer, nothing):
        assert isinstance(error, InvalidRequest)
        assert error.field == "text"
    assert "256 tokens" in str(long)
    prompt = (await asking.end(asking.submit("x", call=None))).error
    assert isinstance(prompt, InvalidRequest)
    assert "is a function" in prompt.message
    asking.read(await asking.end(neighbour))


async def test_what_is_aborted_leaves_vllm_too(asking: Asking) -> None:
    jobs = [asking.submit("stream " * 200) for _ in range(4 * SLOTS)]
    early = jobs[1::4]
    for job in early:
        asking.engine.abort(job)
    await asking.end(jobs[0])
    late = [job for job in jobs[3::4] if not asking.said[job].ended.is_set()]
    assert late
    for job in late:
        asking.engine.abort(job)
    for job in set(jobs) - {*early, *late}:
        asking.read(await asking.end(job))
    asking.engine.abort(jobs[0])
    await until(lambda: inner(asking)._llm.get_num_unfinished_requests() == 0, "vLLM is idle")
    assert not any(asking.said[job].outputs for job in (*early, *late))
    assert asking.engine.observe().running == 0


async def test_a_vector_that_another_worker_gave_is_not_given_again(asking: Asking) -> None:
    output = await asking.end(asking.submit(TEXTS[0], after_items=1))
    assert (output.finish, output.items) == ("stop", ())


async def test_the_engines_death_is_told_once_and_is_no_texts_error(asking: Asking) -> None:
    jobs = [asking.submit("stream " * 200) for _ in range(4 * SLOTS)]
    await asking.end(jobs[0])
    kill(asking.processes)
    await until(lambda: bool(asking.deaths), "the death is told")
    late = asking.submit(TEXTS[0])
    await asyncio.sleep(0)
    asking.engine.abort(late)
    assert [type(error) for error in asking.deaths] == [EngineError]
    assert all(output.error is None for said in asking.said.values() for output in said.outputs[-1:]
               if output.job in jobs)  # fmt: skip
