"""The torch engine: the contract, and what it has beyond."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
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

pytestmark = pytest.mark.engines


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers.utils.logging.disable_progress_bar()
    return make_checkpoint(tmp_path_factory.mktemp("model"))


def make_engine(folder: Path, **settings: Any) -> TorchEngine:
    settings = {"device": "cpu", "max_batch": 8, "prefill_chunk": 16} | settings
    return TorchEngine(str(folder), served_name="tiny", **settings)


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
