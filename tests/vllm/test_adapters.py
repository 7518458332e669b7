"""LoRA adapters by name, and then the engine's death, on an engine of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from shared.errors import EngineError
from tests.eventually import until
from tests.vllm.shared import Relay, engine_processes, kill, make_adapter, start_engine

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(slots=True)
class Own:
    """An engine and its processes."""

    relay: Relay
    processes: set[int]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Own]:
    before = engine_processes()
    base = tmp_path_factory.mktemp("adapters")
    loud = make_adapter(base / "loud", rank=12, scale=0.5)
    silent = make_adapter(base / "silent", rank=4, scale=0.0)
    relay = await start_engine(
        max_model_len="256", max_num_seqs="8", lora_modules=f"loud={loud},silent={silent}"
    )
    yield Own(relay, engine_processes() - before)
    await relay.engine.close()


async def test_an_adapter_changes_the_answers_that_name_it(own: Own) -> None:
    driver = own.relay.driver()
    assert "lora" in own.relay.engine.card.features
    plain, loud, silent = await asyncio.gather(
        driver.one(), driver.one(adapter="loud"), driver.one(adapter="silent")
    )
    assert silent.ids == plain.ids
    assert loud.ids != plain.ids


async def test_the_engines_death_is_told_once(own: Own) -> None:
    driver = own.relay.driver()
    job = driver.submit()
    await driver.answers[job].begun.wait()
    kill(own.processes)
    await until(lambda: own.relay.deaths, "the death is told")
    assert [type(error) for error in own.relay.deaths] == [EngineError]
    assert own.relay.engine.observe().running == 0
    driver.submit()  # Too late, and no fault: the worker is about to end.
    own.relay.engine.abort(job)
