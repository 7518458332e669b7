"""Torch engines and runners on a small checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from tests.engines.driver import Driver, Subject
from workers.engines.reader import PromptReader
from workers.engines.text import Pieces
from workers.engines.torch import TorchEngine
from workers.engines.torch.loading import load
from workers.engines.torch.prompts import Preparer
from workers.engines.torch.runner import Runner

torch.set_num_threads(1)  # reference models are as small as those under test


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
    reader = PromptReader(loaded.tokenizer, len(pieces), loaded.context, slots)
    return Runner(loaded, slots, chunk), Preparer(reader, pieces, loaded.defaults)
