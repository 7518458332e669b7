"""LoRA adapters by name, and then the engine's death, on an engine of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from safetensors.torch import save_file

from shared.errors import EngineError
from tests.vllm.shared import Relay, engine_processes, start_engine
from workers import bundled

pytestmark = pytest.mark.asyncio(loop_scope="session")


def make_adapter(folder: Path, rank: int, scale: float) -> Path:
    """An adapter of the bundled model's query projections, in PEFT's layout."""
    config = json.loads((bundled.PATH / "config.json").read_text())
    hidden = config["hidden_size"]
    width = config["num_attention_heads"] * config["head_dim"]
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{at}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator)
        weights[f"{at}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * scale
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none",
                "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "lora_dropout": 0.0,
                "base_model_name_or_path": "tiny",
            }
        )
    )  # fmt: skip
    return folder


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
    for pid in own.processes:
        os.kill(pid, signal.SIGKILL)
    for _ in range(3000):
        if own.relay.deaths:
            break
        await asyncio.sleep(0.01)
    assert [type(error) for error in own.relay.deaths] == [EngineError]
    assert own.relay.engine.observe().running == 0
    driver.submit()  # Too late, and no fault: the worker is about to end.
    own.relay.engine.abort(job)
