"""Which checkpoints are embedding models, what they are called, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.engines.checkpoint import edit_json
from tests.vllm.embedding import MODEL
from tests.vllm.shared import SMALL
from workers import bundled
from workers.engines.base import ModelLoadError
from workers.engines.vllm import VllmModel
from workers.engines.vllm.embedder import function_name, pools
from workers.engines.vllm.stats import Batches


async def refusal(model: str, **args: str) -> str:
    """Why a model is not loaded."""
    engine = VllmModel(model, "mini", SMALL | args)
    try:
        with pytest.raises(ModelLoadError) as caught:
            await engine.start(lambda _outputs: None, lambda _error: None)
    finally:
        await engine.close()
    return str(caught.value)


@pytest.mark.parametrize(
    ("steps", "queued"),
    [
        ([(8, 8, 0)], [0]),  # All ran together.
        ([(8, 1, 7), (0, 7, 0)], [0, 0]),  # What came while a step ran goes into the next.
        ([(8, 4, 4), (4, 4, 4), (4, 4, 4)], [0, 0, 0]),  # Two batches take turns.
        ([(40, 16, 24), (0, 16, 8), (0, 8, 0)], [0, 0, 0]),
        ([(60, 16, 44), (0, 16, 28), (0, 16, 12), (0, 12, 0)], [0, 12, 0, 0]),
        ([(60, 16, 44), (16, 16, 44), (16, 16, 44)], [0, 28, 28]),  # Too many, again and again.
    ],
)
def test_what_a_step_has_no_room_for(steps: list[tuple[int, int, int]], queued: list[int]) -> None:
    batches = Batches()
    seen = []
    for came, ended, waiting in steps:
        for _ in range(came):
            batches.came()
        batches.record(
            SimpleNamespace(
                num_running_reqs=0, num_waiting_reqs=waiting, num_skipped_waiting_reqs=0,
                kv_cache_usage=0.0,
            ),
            SimpleNamespace(finished_requests=[None] * ended),
        )  # fmt: skip
        seen.append(batches.queued)
    assert seen == queued
    assert batches.count == len(steps)


def test_which_models_embed() -> None:
    assert pools(MODEL, {})
    assert not pools(str(bundled.PATH), {})
    assert pools(str(bundled.PATH), {"runner": "pooling"})
    with pytest.raises(ModelLoadError, match="no directory /no/such"):
        pools("/no/such", {})


@pytest.mark.parametrize(
    ("served", "model", "name"),
    [
        ("mini", "/models/x.y", "mini"),
        ("/models/all-MiniLM-L6-v2", "/models/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("org/e5_small", "org/e5_small", "e5_small"),
    ],
)
def test_the_functions_name(served: str, model: str, name: str) -> None:
    assert function_name(served, model) == name


@pytest.mark.parametrize(
    ("served", "usual"),
    [("org/bge-base-v1.5", "bge-base-v1-5"), ("/models/7b", "b"), ("./1", "embed")],
)
def test_a_name_that_no_function_has_is_refused(served: str, usual: str) -> None:
    with pytest.raises(ModelLoadError, match=f"give --served-name, {usual} say"):
        function_name(served, served)
    with pytest.raises(ModelLoadError, match="give --served-name"):
        function_name("org/mini", "/models/mini")


@pytest.mark.asyncio
async def test_adapters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    said = await refusal(MODEL, lora_modules=f"a={tmp_path}")
    assert "lora_modules are for models that generate" in said


@pytest.mark.asyncio
async def test_a_model_that_sorts_texts_is_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(Path(MODEL) / name, tmp_path / name)
    edit_json(tmp_path / "config.json", architectures=["BertForSequenceClassification"])
    said = await refusal(str(tmp_path), load_format="dummy")
    assert "BertForSequenceClassification, not an embedding model" in said
    assert "classify" in said
