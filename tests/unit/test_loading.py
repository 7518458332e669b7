"""From the worker's flags to the engine's own arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shared.settings import SettingsError, load
from workers.engines.base import ModelLoadError
from workers.engines.loading import _arguments, _prepare_hub, load_engine
from workers.settings import WorkerSettings


@pytest.mark.parametrize(
    ("given", "args"),
    [
        ({"engine": "sim", "max_batch": 3}, {"max_batch": "3"}),
        ({"engine": "sim", "context_length": 99}, {"context_length": "99"}),
        (
            {"engine": "torch", "dtype": "bfloat16", "context_length": 512, "max_batch": 4},
            {"dtype": "bfloat16", "context_length": "512", "max_batch": "4"},
        ),
        (
            {"engine": "vllm", "model": "m", "context_length": 512, "max_batch": 4},
            {"max_model_len": "512", "max_num_seqs": "4"},
        ),
        (
            {"engine": "vllm", "model": "a/b", "revision": "v2", "quantization": "fp8"},
            {"revision": "v2", "quantization": "fp8"},
        ),
        (
            {"engine": "vllm", "model": "m", "trust_remote_code": True},
            {"trust_remote_code": "true"},
        ),
        (
            {"engine": "vllm", "model": "m", "max_batch": 4, "engine_args": "max_num_seqs=9"},
            {"max_num_seqs": "9"},
        ),
    ],
)
def test_flags_become_the_engines_arguments(given: dict[str, Any], args: dict[str, str]) -> None:
    assert _arguments(load(WorkerSettings, given)) == args


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"engine": "torch", "quantization": "awq"}, ["--quantization", "vllm engine reads"]),
        ({"engine": "torch", "trust_remote_code": True}, ["--trust-remote-code", "vllm"]),
        ({"engine": "vllm", "model": "m", "dtype": "int8"}, ["int8", "--quantization"]),
        ({"engine": "sim", "engine_args": "speed=3"}, ["speed", "step_ms"]),
    ],
)
def test_a_flag_that_the_engine_has_no_use_for(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_engine(load(WorkerSettings, given))
    for word in words:
        assert word in str(caught.value)


def test_the_hubs_library_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "before")
    monkeypatch.setenv("HF_HUB_CACHE", "before")
    token = tmp_path / "token"
    token.write_text("made-up\n")
    _prepare_hub(load(WorkerSettings, {"token_file": str(token), "cache_dir": str(tmp_path)}))
    assert os.environ["HF_TOKEN"] == "made-up"
    assert os.environ["HF_HUB_CACHE"] == str(tmp_path)
    token.write_text(" \n")
    with pytest.raises(ModelLoadError, match="is empty"):
        _prepare_hub(load(WorkerSettings, {"token_file": str(token)}))
    with pytest.raises(SettingsError, match="--token-file"):
        load(WorkerSettings, {"token_file": "/no/such/file"})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"engine": "sim"}, None),
        ({"engine": "torch"}, 0.1),
        ({"engine": "torch", "itl_target_ms": 25}, 0.025),
        ({"engine": "torch", "itl_target_ms": 0}, None),
    ],
)
def test_the_latency_target(given: dict[str, Any], seconds: float | None) -> None:
    assert load(WorkerSettings, given).itl_target == seconds
