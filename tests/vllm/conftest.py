"""The engine that most tests share."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from tests.vllm.shared import Relay, VllmDriver

with warnings.catch_warnings():  # They are errors here, but vLLM's and torch's are not ours.
    warnings.simplefilter("ignore")
    pytest.importorskip(
        "vllm.v1.engine.async_llm", reason="vLLM is not installed: make test-vllm"
    )

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay() -> AsyncIterator[Relay]:
    """The bundled model with a short context, as the contract wants it."""
    from tests.vllm.shared import start_engine

    relay = await start_engine(
        max_model_len="256",
        max_num_seqs="32",
        # The small model would write blanks for ever.
        structured_outputs_config='{"backend": "xgrammar", "disable_any_whitespace": true}',
    )
    yield relay
    await relay.engine.close()
    assert not relay.deaths


@pytest_asyncio.fixture(loop_scope="session")
async def driver(listening: VllmDriver) -> VllmDriver:
    """The same, under the name that the contract's tests use."""
    return listening


@pytest_asyncio.fixture(loop_scope="session")
async def listening(relay: Relay) -> AsyncIterator[VllmDriver]:
    """A driver on the shared engine."""
    driver = relay.driver()
    yield driver
    for job in list(driver.answers):
        driver.engine.abort(job)
    await driver.idle()
    assert not relay.deaths
