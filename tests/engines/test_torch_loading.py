"""What the torch engine makes of checkpoints, settings and prompts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")


from shared.errors import InvalidRequest
from shared.wire import Message, Sampling
from tests.engines.checkpoint import edit_json, make_checkpoint
from tests.engines.driver import GREEDY, changed
from tests.engines.torch_engines import driving, make_engine
from workers.engines.base import ModelLoadError
from workers.engines.fingerprint import checkpoint
from workers.engines.torch import TorchEngine
from workers.engines.torch.weights import weight_files

# ---- prompts and defaults ----------------------------------------------------------------------


async def test_a_model_without_a_template_takes_no_messages(tmp_path: Path) -> None:
    engine = make_engine(make_checkpoint(tmp_path, template=None))
    async with driving(engine) as driver:
        assert "chat" not in engine.card.features
        error = (await driver.run(messages=(Message("user", "hello"),))).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "messages"
        error = (await driver.run("")).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "prompt"


async def test_a_template_that_refuses_is_the_requests_error(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    async with driving(make_engine(copy)) as driver:
        error = (await driver.run(messages=(Message("user", "hello"),))).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "messages"
        assert "roles must alternate" in error.message


async def test_unset_sampling_is_the_checkpoints(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit_json(copy / "generation_config.json", temperature=0.7, top_k=5, top_p=0.8)
    async with driving(make_engine(copy)) as driver:
        unset = await driver.one(sampling=Sampling(max_tokens=20, seed=1))
        named = Sampling(max_tokens=20, seed=1, temperature=0.7, top_k=5, top_p=0.8)
        assert (await driver.one(sampling=named)).ids == unset.ids
        other = changed(named, top_k=0, top_p=1.0)
        assert (await driver.one(sampling=other)).ids != unset.ids


async def test_too_many_choices_are_refused(folder: Path) -> None:
    async with driving(make_engine(folder, max_batch=2)) as driver:
        error = (await driver.run(sampling=changed(GREEDY, n=3))).error
        assert isinstance(error, InvalidRequest)
        assert error.field == "sampling.n"
        assert (await driver.run(sampling=changed(GREEDY, n=2))).error is None


async def test_more_jobs_than_slots_wait(folder: Path) -> None:
    async with driving(make_engine(folder, max_batch=2)) as driver:
        jobs = [driver.submit(sampling=changed(GREEDY, n=1 + k % 2)) for k in range(7)]
        for number in jobs:
            assert (await driver.end(number)).error is None


# ---- loading -----------------------------------------------------------------------------------


async def test_the_card(folder: Path, tmp_path: Path) -> None:
    engine = make_engine(folder, context_length=100)
    async with driving(engine):
        card = engine.card
    assert (card.name, card.engine, card.dtype) == ("tiny", "torch", "float32")
    assert (card.context_length, card.vocab_size, card.max_batch) == (100, 384, 8)
    copy = shutil.copytree(folder, tmp_path / "copy")
    prints = {card.fingerprint}
    assert prints == {checkpoint(folder, weight_files(folder), "tiny", "torch.float32")}
    async with driving(make_engine(copy)) as driver:
        assert driver.engine.card.fingerprint in prints
    shards = sorted(copy.glob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-1] + b"\x01")
    async with driving(make_engine(copy)) as driver:
        prints.add(driver.engine.card.fingerprint)
    async with driving(make_engine(copy, dtype="bfloat16")) as driver:
        assert driver.engine.card.dtype == "bfloat16"
        prints.add(driver.engine.card.fingerprint)
        assert len((await driver.one()).ids) == GREEDY.max_tokens
    assert len(prints) == 3


def break_weights(folder: Path) -> None:
    next(iter(sorted(folder.glob("*.safetensors")))).write_bytes(b"nothing")


def drop(*names: str) -> Any:
    def change(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                path.unlink()

    return change


def config(**changes: Any) -> Any:
    return lambda folder: edit_json(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("config.json"), ["no config.json"]),
        (drop("*.safetensors"), ["no weights", "model-00001"]),
        (drop("tokenizer*"), ["cannot load the tokenizer"]),
        (break_weights, ["are broken"]),
        (config(vocab_size=400), ["model.embed_tokens.weight", "must be (400, 48)"]),
        (config(hidden_size=64), ["tokenizer", "hidden size (64)"]),
        (config(num_hidden_layers=3), ["no weight model.layers.2"]),
        (config(architectures=["BertModel"]), ["not a causal", "LlamaForCausalLM"]),
        (config(architectures=["FalconForCausalLM"]), ["FalconForCausalLM", "Qwen2ForCausalLM"]),
        (config(architectures=None), ["no architecture"]),
        (config(rms_norm_eps=None), ["config.json", "rms_norm_eps"]),
        (config(rope_parameters={"rope_type": "yarn"}), ["yarn", "llama3"]),
        (config(quantization_config={"bits": 4}), ["quantized"]),
        (config(hidden_act="gelu"), ["gelu"]),
    ],
)
async def test_a_broken_checkpoint_says_what_is_wrong(
    folder: Path, tmp_path: Path, change: Any, words: list[str]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(ModelLoadError) as caught:
        await make_engine(copy).start(lambda _outputs: None, lambda _error: None)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_batch": 1 << 30}, ["out of memory", "max_batch", "context_length", "GiB"]),
        ({"context_length": 100_000}, ["context_length 100000", "256"]),
        ({"dtype": "int3"}, ["int3", "bfloat16"]),
        ({"device": "abacus"}, ["abacus", "cuda"]),
        ({"device": "cuda:99"}, ["cuda:99", "not there"]),
    ],
)
async def test_settings_that_do_not_fit(
    folder: Path, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        await make_engine(folder, **settings).start(lambda _outputs: None, lambda _error: None)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_batches": "3"}, ["max_batches", "max_batch,", "threads"]),
        ({"max_batch": "many"}, ["max_batch='many'", "whole number"]),
        ({"max_batch": "0"}, ["max_batch=0", "at least 1"]),
        ({"threads": "0"}, ["threads=0"]),
    ],
)
def test_bad_arguments(args: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        TorchEngine.from_args("somewhere", "name", args)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/no/such/place", ["no directory /no/such/place"]),
        ("someone/some-model", ["someone/some-model", "HF_HUB_OFFLINE"]),
        (__file__, ["is a file"]),
    ],
)
async def test_a_model_that_is_not_there(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError) as caught:
        await TorchEngine(name, served_name="x").start(lambda _o: None, lambda _e: None)
    for word in words:
        assert word in str(caught.value)
