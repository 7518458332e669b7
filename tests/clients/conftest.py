from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.running import Clients


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with Clients(tmp_path_factory.mktemp("clients")) as running:
        yield running
