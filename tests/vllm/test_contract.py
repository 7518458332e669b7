"""The contract on a real vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.engines.contract import Driver, EngineContract
from tests.vllm.shared import Relay


@pytest.mark.asyncio(loop_scope="session")
class TestContract(EngineContract):
    @pytest_asyncio.fixture(loop_scope="session")
    async def driver(self, relay: Relay) -> AsyncIterator[Driver]:
        driver = relay.driver()
        yield driver
        for job in list(driver.answers):
            driver.engine.abort(job)
        await driver.idle()
        assert not relay.deaths
