"""The contract on a real vLLM."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.engines.contract import EngineContract
from tests.engines.driver import Driver
from tests.vllm.shared import VllmDriver


@pytest.mark.asyncio(loop_scope="session")
class TestContract(EngineContract):
    @pytest_asyncio.fixture(loop_scope="session")
    async def driver(self, listening: VllmDriver) -> Driver:  # type: ignore[override]
        return listening
