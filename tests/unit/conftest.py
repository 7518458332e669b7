"""Functions on a server of this process, and a client of them; how examples are drawn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, settings

from millstream import Client
from tests.unit.fake_functions import COUNT, GREET, MIRROR, Functions, count, greet, mirror

# How long an example takes says how busy the machine is, here as in Hypothesis's own profile of CI.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def functions() -> Functions:
    served = Functions()
    served.serve(MIRROR, mirror)
    served.serve(GREET, greet)
    served.serve(COUNT, count)
    return served


@pytest.fixture
async def client(functions: Functions) -> AsyncIterator[Client]:
    async with functions.serving() as target, Client(target) as client:
        yield client
