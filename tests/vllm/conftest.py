"""One vLLM for all tests of a shape: it takes half a minute to start."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from shared.errors import MillstreamError
from tests.vllm.shared import Relay, start_engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay() -> AsyncIterator[Relay]:
    """The bundled model with a short context, as the contract wants it."""
    relay = await start_engine(max_model_len="256", max_num_seqs="32")
    yield relay
    await relay.engine.close()
    assert not relay.deaths
