"""Functions on a server of this process, and a client of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from millstream import Client
from tests.unit.fake_functions import COUNT, GREET, MIRROR, Functions, count, greet, mirror


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
