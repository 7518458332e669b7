"""Marks every test by the folder it lies in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests start processes while grpcio's threads run. Its fork handlers would start those threads in
# the child too, before exec, where they find their descriptors closed and abort.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        item.add_marker(getattr(pytest.mark, folder))
        if folder == "faults":
            item.add_marker(pytest.mark.alone)
