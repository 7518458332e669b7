"""The torch engine: the contract, and what it has beyond."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch
import transformers

from shared.errors import EngineError, InvalidRequest
from shared.wire import Message, Sampling
from tests.engines.checkpoint import edit_json, make_checkpoint
from tests.engines.contract import GREEDY, Driver, EngineContract, Subject, changed
from workers.engines.base import Job, ModelLoadError
from workers.engines.text import Pieces
from workers.engines.torch import TorchEngine
from workers.engines.torch.loading import load
from workers.engines.torch.prompts import Preparer
from workers.engines.torch.runner import Runner


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    disable: Any = transformers.utils.logging.disable_progress_bar
    disable()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def make_engine(folder: Path, **settings: Any) -> TorchEngine:
    values: dict[str, Any] = {"device": "cpu", "max_batch": 8, "prefill_chunk": 16}
    return TorchEngine(str(folder), served_name="tiny", **values | settings)


@asynccontextmanager
async def driving(engine: TorchEngine) -> AsyncIterator[Driver]:
    driver = Driver(Subject(engine, lambda _ids: ""))
    await engine.start(driver.take, driver.deaths.append)
    try:
        yield driver
    finally:
        await engine.close()
    assert not driver.deaths


def make_runner(folder: Path, slots: int = 8, chunk: int = 16) -> tuple[Runner, Preparer]:
    loaded = load(
        str(folder), served_name="t", dtype="auto", device="cpu", slots=slots, context=None
    )
    pieces = Pieces.of(loaded.tokenizer, loaded.config.vocab_size)
    preparer = Preparer(loaded.tokenizer, pieces, loaded.defaults, loaded.context, slots)
    return Runner(loaded, slots, chunk), preparer


class TestContract(EngineContract):
    @pytest.fixture
    def subject(self, folder: Path) -> Subject:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        return Subject(
            make_engine(folder),
            lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
            tuple(tokenizer.encode("é€𝄞ж", add_special_tokens=False)),
        )


# ---- the same tokens as transformers -----------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "one-head": {"num_key_value_heads": 1},
    "all-heads": {"num_key_value_heads": 6},
    "wide-heads": {"head_dim": 16},
    "mistral": {"architecture": "Mistral", "sliding_window": None},
    "qwen2": {"architecture": "Qwen2"},
}


def prompts() -> list[list[int]]:
    """Prompts of 1 to 60 tokens."""
    torch.manual_seed(3)
    return [torch.randint(1, 380, (1 + 59 * k // 11,)).tolist() for k in range(12)]


def reference(folder: Path, prompt: list[int], tokens: int) -> list[int]:
    """What transformers generates greedily."""
    load_model: Any = transformers.AutoModelForCausalLM.from_pretrained
    model = load_model(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    answer = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return list(answer[0, len(prompt) :].tolist())


@pytest.mark.parametrize("variant", VARIANTS)
async def test_greedy_answers_are_those_of_transformers(variant: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, **VARIANTS[variant])
    limits = [12 + 5 * (place % 4) for place in range(12)]
    given = list(zip(prompts(), limits, strict=True))
    wanted = [reference(folder, prompt, limit) for prompt, limit in given]
    async with driving(make_engine(folder)) as driver:
        fields: list[dict[str, Any]] = [
            {"token_ids": tuple(prompt), "sampling": Sampling(max_tokens=limit, temperature=0.0)}
            for prompt, limit in given
        ]
        assert [(await driver.one(**each)).ids for each in fields] == wanted
        jobs = [driver.submit(**each) for each in fields * 2]
        assert [(await driver.end(job)).choices[0].ids for job in jobs] == wanted * 2


async def test_the_end_token_ends_an_answer(folder: Path, tmp_path: Path) -> None:
    prompt = prompts()[4]
    answer = reference(folder, prompt, 12)
    eos = answer[5]
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit_json(copy / "generation_config.json", eos_token_id=[eos, 0])
    async with driving(make_engine(copy)) as driver:
        sampling = Sampling(max_tokens=12, temperature=0.0)
        given: dict[str, Any] = {"token_ids": tuple(prompt), "sampling": sampling}
        choice = await driver.one(**given)
        assert (choice.ids, choice.finish) == (answer[: answer.index(eos) + 1], "stop")
        assert choice.completion_tokens == len(choice.ids)
        rest = await driver.one(**given, delivered=(tuple(choice.ids),))
        assert (rest.ids, rest.finish, rest.completion_tokens) == ([], "stop", len(choice.ids))
        on = await driver.one(**given | {"sampling": changed(GREEDY, max_tokens=12)})
        assert on.ids == answer


# ---- steps -------------------------------------------------------------------------------------


def job(number: int, tokens: int = 5, **sampling: Any) -> Job:
    values = {"max_tokens": 20, "temperature": 0.0, "ignore_eos": True} | sampling
    return Job(number, None, None, tuple(range(1, tokens + 1)), Sampling(**values))


@pytest.fixture
def stepping(folder: Path) -> Iterator[tuple[Runner, Preparer]]:
    with torch.inference_mode():
        yield make_runner(folder)


def add(stepping: tuple[Runner, Preparer], *jobs: Job) -> None:
    runner, preparer = stepping
    for each in jobs:
        for lane in preparer.prepare(each).lanes:
            runner.add(lane)


def finish(runner: Runner) -> dict[int, list[int]]:
    """Step until nothing is left; tokens by job."""
    ids: dict[int, list[int]] = {}
    while not runner.idle:
        for output in runner.step():
            ids.setdefault(output.job, []).extend(output.token_ids)
    return ids


def test_an_abort_in_prefill_frees_at_once(stepping: tuple[Runner, Preparer]) -> None:
    runner, _ = stepping
    add(stepping, job(1, tokens=5))
    runner.step()
    add(stepping, job(2, tokens=200), job(3, tokens=200))
    for _ in range(3):
        assert {output.job for output in runner.step()} == {1}
    assert runner.jobs == 2
    assert [lane.cached for lane in runner.scheduler.lanes] == [8, 48]
    runner.abort({2})
    assert runner.jobs == 1
    runner.abort({3})
    assert runner.scheduler.waiting == 0
    assert list(finish(runner)) == [1]


def test_a_long_prompt_does_not_stop_the_others(stepping: tuple[Runner, Preparer]) -> None:
    runner, _ = stepping
    add(stepping, job(1))
    runner.step()
    add(stepping, job(2, tokens=100))
    for _ in range(6):
        assert [output.job for output in runner.step()] == [1]
    assert [output.job for output in runner.step()] == [1, 2]


def test_scores_that_are_not_finite_fail_one_job(
    stepping: tuple[Runner, Preparer],
) -> None:
    runner, _ = stepping
    add(stepping, *(job(number, tokens=number + 3) for number in range(4)))
    alone = finish(runner)
    add(stepping, *(job(number, tokens=number + 3) for number in range(4)))
    outputs = runner.step()
    broken = runner.scheduler.lanes[1].job
    runner._cache._rows[:, 1] = torch.nan
    outputs += runner.step()
    errors = [output for output in outputs if output.error is not None]
    assert [output.job for output in errors] == [broken]
    assert isinstance(errors[0].error, EngineError)
    add(stepping, job(9, tokens=4))  # into the slot that held the broken numbers
    after = finish(runner)
    assert len(after.pop(9)) == 20
    for number, ids in after.items():
        before = [token for each in outputs if each.job == number for token in each.token_ids]
        assert before + ids == alone[number]
    assert after.keys() == {0, 1, 2, 3} - {broken}


def test_a_prompt_that_is_not_finite_fails_before_it_moves(
    stepping: tuple[Runner, Preparer],
) -> None:
    runner, _ = stepping
    add(stepping, job(1, tokens=100))
    runner.step()
    runner._cache._rows[:, 0] = torch.nan
    assert [type(output.error) for output in runner.step()] == [EngineError]
    assert runner.idle


def test_a_sampler_error_is_one_jobs_own(
    stepping: tuple[Runner, Preparer], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = stepping
    jobs = [job(number, temperature=1.0, seed=number, logprobs=2) for number in range(4)]
    add(stepping, *jobs)
    alone = finish(runner)
    pick = runner._sampler.pick

    def fragile(logits: torch.Tensor, lanes: list[Any]) -> Any:
        if any(lane.job == 2 and len(lane.answer) == 5 for lane in lanes):
            raise ValueError("made to fail")
        return pick(logits, lanes)

    monkeypatch.setattr(runner._sampler, "pick", fragile)
    add(stepping, *jobs)
    ids: dict[int, list[int]] = {}
    errors = []
    while not runner.idle:
        for output in runner.step():
            ids.setdefault(output.job, []).extend(output.token_ids)
            errors += [(output.job, str(output.error))] if output.error else []
    assert errors == [(2, "ValueError('made to fail')")]
    assert ids == alone | {2: alone[2][:5]}


async def test_a_step_that_fails_is_the_engines_death(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(Subject(make_engine(folder), lambda _ids: ""))
    death = asyncio.get_running_loop().create_future()
    await driver.engine.start(driver.take, death.set_result)
    monkeypatch.setattr(Runner, "step", lambda _self: 1 // 0)
    driver.submit()
    assert isinstance(await asyncio.wait_for(death, 10), EngineError)
    await driver.engine.close()


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
