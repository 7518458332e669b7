"""The torch engine with its linear layers in int8: the contract, their size, and what it costs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from benchmarks.torch_int8 import held_out, loss, storage
from shared.wire import Sampling
from tests.engines.checkpoint import make_checkpoint
from tests.engines.contract import EngineContract
from tests.engines.driver import Subject
from tests.engines.torch_engines import driving, make_engine
from workers import bundled
from workers.engines.base import ModelLoadError
from workers.engines.torch import linear
from workers.engines.torch.linear import Int8, quantise
from workers.engines.torch.loading import Loaded, load


class TestContract(EngineContract):
    @pytest.fixture
    def subject(self, folder: Path) -> Subject:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        return Subject(
            make_engine(folder, dtype="int8"),
            lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
            tuple(tokenizer.encode("é€𝄞ж", add_special_tokens=False)),
        )


def loaded(folder: Path, dtype: str) -> Loaded:
    return load(str(folder), served_name="t", dtype=dtype, device="cpu", slots=1, context=None)


@pytest.fixture
def bundled_model() -> Path:
    if not (bundled.PATH / "config.json").is_file():
        pytest.skip("there is no bundled model")
    return bundled.PATH


# ---- one layer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_layer_is_its_weight_rounded(
    dtype: torch.dtype, biased: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_CPU_BLOCK", 96)  # three rows at a time, and a shorter last block
    torch.manual_seed(5)
    weight, inputs = torch.randn(13, 32), torch.randn(rows, 32).to(dtype)
    bias = torch.randn(13).to(dtype) if biased else None
    numbers, scale = quantise(weight, dtype)
    rounded = numbers.double() * scale.double().unsqueeze(1)
    half_a_step = weight.abs().amax(dim=1, keepdim=True) / 127 / 2
    assert ((rounded - weight).abs() <= half_a_step * (1 + 2 * torch.finfo(dtype).eps)).all()
    expected = F.linear(inputs.double(), rounded, None if bias is None else bias.double())
    answer = Int8(numbers, scale, bias)(inputs)
    assert answer.dtype == dtype
    room = 8 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(answer.double(), expected, rtol=0, atol=room)


def test_a_row_of_zeros_stays_one() -> None:
    weight = torch.randn(4, 8)
    weight[2] = 0
    numbers, scale = quantise(weight, torch.float32)
    assert not numbers[2].any()
    assert Int8(numbers, scale, None)(torch.randn(3, 8))[:, 2].tolist() == [0, 0, 0]


def test_large_activations_do_not_overflow_in_float16() -> None:
    numbers, scale = quantise(torch.full((2, 64), 0.01), torch.float16)
    answer = Int8(numbers, scale, None)(torch.full((1, 64), 1000.0, dtype=torch.float16))
    assert answer.tolist()[0] == pytest.approx([640.0, 640.0], rel=0.01)


# ---- the model ---------------------------------------------------------------------------------


def test_linear_layers_take_a_quarter_of_float32(bundled_model: Path) -> None:
    sizes = {dtype: storage(loaded(bundled_model, dtype)) for dtype in ("float32", "int8")}
    assert sizes["int8"].linear < 0.26 * sizes["float32"].linear
    assert sizes["int8"].rest == sizes["float32"].rest


def test_the_loss_is_that_of_float32(bundled_model: Path) -> None:
    documents = held_out(bundled_model, 6)
    exact, rounded = (loss(loaded(bundled_model, each), documents) for each in ("float32", "int8"))
    assert exact < 1.0, "the bundled model should know this text"
    assert rounded == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [{"attention_bias": True, "mlp_bias": True}, {"architecture": "Qwen2"}, {"head_dim": 7 * 2}],
    ids=["biased", "qwen2", "odd-widths"],
)
def test_biases_and_odd_widths(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, **changes)
    documents = [([*range(5, 45)], [*range(5, 45)])]
    exact, rounded = (loss(loaded(folder, each), documents) for each in ("float32", "int8"))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_continuation_is_the_rest(bundled_model: Path, temperature: float) -> None:
    sampling = Sampling(max_tokens=40, temperature=temperature, seed=9, ignore_eos=True)
    given: dict[str, Any] = {"prompt": "Once upon a time", "sampling": sampling}
    async with driving(make_engine(bundled_model, dtype="int8", prefill_chunk=7)) as driver:
        full = await driver.one(**given)
        jobs = [driver.submit(**given, delivered=(tuple(full.ids[:cut]),)) for cut in (1, 20, 39)]
        for job, cut in zip(jobs, (1, 20, 39), strict=True):
            rest = (await driver.end(job)).choices[0]
            assert rest.ids == full.ids[cut:]
            assert full.after[cut - 1] + rest.text == full.text


async def test_the_card(folder: Path) -> None:
    prints = set()
    for dtype in ("float32", "bfloat16", "int8"):
        async with driving(make_engine(folder, dtype=dtype)) as driver:
            assert driver.engine.card.dtype == dtype
            prints.add(driver.engine.card.fingerprint)
    assert len(prints) == 3


# ---- what is refused ---------------------------------------------------------------------------


def test_an_unknown_dtype_names_the_allowed_ones(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"'int4' is none of auto, float32, .*, int8"):
        loaded(folder, "int4")


def test_a_weight_that_is_not_finite_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    name = "model.layers.1.mlp.down_proj.weight"
    for path in copy.glob("*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            tensors[name][3, 5] = torch.nan
            save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=rf"{name} cannot be made int8"):
        loaded(copy, "int8")
