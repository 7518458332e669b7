"""The random checkpoint that the torch engine's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.checkpoint import make_checkpoint


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"))
