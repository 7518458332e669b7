"""The engine that most tests share."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from tests.vllm.shared import Relay, VllmDriver

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if importlib.util.find_spec("vllm") is None:  # `make test-vllm` installs it.
    collect_ignore_glob = ["test_*.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm.v1.engine.async_llm  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    # Warnings are errors, but vLLM's and its libraries' are not ours.
    config.addinivalue_line("filterwarnings", "default")


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
async def listening(relay: Relay) -> AsyncIterator[VllmDriver]:
    """A driver on the shared engine."""
    driver = relay.driver()
    yield driver
    for job in list(driver.answers):
        driver.engine.abort(job)
    await driver.idle()
    assert not relay.deaths


@pytest_asyncio.fixture(loop_scope="session")
async def driver(listening: VllmDriver) -> VllmDriver:
    """The same, under the name that tests use."""
    return listening
