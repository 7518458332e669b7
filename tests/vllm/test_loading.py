"""What cannot be loaded says why and what to change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engines.checkpoint import edit_json
from tests.vllm.shared import SMALL
from workers import bundled
from workers.engines.base import ModelLoadError
from workers.engines.vllm import VllmEngine
from workers.engines.vllm.arguments import parse


async def refusal(model: str, **args: str) -> str:
    """Why a model is not loaded."""
    engine = VllmEngine(model, "tiny", SMALL | args)
    try:
        with pytest.raises(ModelLoadError) as caught:
            await engine.start(lambda _outputs: None, lambda _error: None)
    finally:
        await engine.close()
    return str(caught.value)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(bundled.PATH, tmp_path / "copy")


async def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    assert "no directory /no/such/place" in await refusal("/no/such/place")
    assert "no config.json" in await refusal(str(tmp_path))
    assert "is a file" in await refusal(__file__)


async def test_a_hub_model_while_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = await refusal("someone/some-model")
    assert "someone/some-model" in said
    assert "HF_HUB_OFFLINE is set" in said


async def test_what_is_no_causal_model(copy: Path) -> None:
    edit_json(
        copy / "config.json", architectures=["BertModel"], model_type="bert", hidden_act="gelu",
        type_vocab_size=2, layer_norm_eps=1e-6,
    )  # fmt: skip
    assert "not a causal language model" in await refusal(str(copy))


async def test_an_architecture_that_vllm_does_not_run(copy: Path) -> None:
    edit_json(copy / "config.json", architectures=["AbacusForCausalLM"])
    said = await refusal(str(copy))
    assert "AbacusForCausalLM" in said
    assert "does not run its architecture" in said


async def test_weights_that_are_missing(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    said = await refusal(str(copy))
    assert "vLLM cannot load it" in said
    assert "weights" in said


async def test_a_context_that_the_model_does_not_have() -> None:
    said = await refusal(str(bundled.PATH), max_model_len="100000")
    assert "max_model_len (100000)" in said


async def test_too_little_memory() -> None:
    said = await refusal(str(bundled.PATH), num_gpu_blocks_override="1")
    assert "out of memory" in said
    for word in ("context_length", "max_batch", "bfloat16"):
        assert word in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_modl_len": "3"}, ["max_modl_len", "max_model_len", "lora_modules"]),
        ({"max_model_len": "many"}, ["max_model_len='many'"]),
        ({"enforce_eager": "perhaps"}, ["enforce_eager", "true or false"]),
        ({"scheduling_policy": "chance"}, ["scheduling_policy", "fcfs, priority"]),
        ({"model": "x"}, ["model", "--model"]),
        ({"served_model_name": "x"}, ["--served-name"]),
        ({"lora_modules": "poet"}, ["lora_modules", "NAME=DIRECTORY"]),
        ({"lora_modules": "poet=/no/such"}, ["poet", "adapter_config.json"]),
    ],
)
def test_arguments_that_are_none(args: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        parse("somewhere", args)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_model_len", "2k", 2000),
        ("gpu_memory_utilization", "0.5", 0.5),
        ("enable_prefix_caching", "false", False),
        ("enforce_eager", "True", True),
        ("quantization", "fp8", "fp8"),
        ("cudagraph_capture_sizes", "1, 2,4", [1, 2, 4]),
        ("hf_overrides", '{"rope_theta": 3}', {"rope_theta": 3}),
        ("load_format", "dummy", "dummy"),
    ],
)
def test_arguments_have_vllms_types(name: str, text: str, value: Any) -> None:
    assert getattr(parse(str(bundled.PATH), {name: text}).engine, name) == value


def test_an_adapter_decides_what_vllm_is_built_for(tmp_path: Path) -> None:
    for name, rank in (("small", 4), ("large", 24)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    given = parse(str(bundled.PATH), {"lora_modules": f"a={tmp_path}/small, b={tmp_path}/large"})
    assert sorted(given.adapters) == ["a", "b"]
    assert (given.engine.enable_lora, given.engine.max_loras) == (True, 2)
    assert given.engine.max_lora_rank == 32
