"""The torch engine: the contract, and the same tokens as transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch
import transformers

from shared.wire import Message, Sampling
from tests.engines.checkpoint import edit_json, make_checkpoint
from tests.engines.contract import EngineContract
from tests.engines.driver import GREEDY, Subject, changed
from tests.engines.torch_engines import driving, make_engine
from workers import bundled


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


async def test_the_bundled_model_answers_as_with_transformers() -> None:
    if not (bundled.PATH / "config.json").is_file():
        pytest.skip("there is no bundled model")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(bundled.PATH)
    starts = ["Once upon a time", "The dog", "One day, a girl named Lily", "Tom and the"]
    chats = [(Message("user", text),) for text in ("Hello!", "Tell me a story about a cat.")]
    given: list[dict[str, Any]] = [{"prompt": text} for text in starts]
    given += [{"messages": messages} for messages in chats]
    sampling = Sampling(max_tokens=120, temperature=0.0)
    async with driving(make_engine(bundled.PATH, prefill_chunk=7)) as driver:
        jobs = [driver.submit(**each, sampling=sampling) for each in given]
        for job in jobs:
            answer = await driver.end(job)
            ids = reference(bundled.PATH, list(answer.prompt_ids or ()), 120)
            assert answer.choices[0].ids == ids
            assert answer.choices[0].text == tokenizer.decode(ids, skip_special_tokens=True)
