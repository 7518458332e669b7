from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running import RunningStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack for all tests that leave it as it is: the sim engine, two workers."""
    data_dir = tmp_path_factory.mktemp("stack") / "data"
    with RunningStack(data_dir, "--workers", "2", "--engine-arg", "step_ms=2") as running:
        yield running
