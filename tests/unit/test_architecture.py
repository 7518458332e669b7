"""Imports point one way, and engines' libraries stay in the engines' files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "shared": {"shared"},
    "gateway": {"gateway", "shared"},
    "workers": {"workers", "shared"},
    "millstream": {"millstream", "gateway", "workers", "shared"},
}
HEAVY = {"torch", "transformers", "vllm", "tokenizers", "safetensors"}
HEAVY_HOMES = ("workers/engines/torch/", "workers/engines/vllm")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def modules(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_downwards_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in MAY_IMPORT
        and name.split(".")[0] not in MAY_IMPORT[package]
        and not name.startswith("millstream.v1")  # The generated stubs depend on nothing.
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_engine_libraries_stay_in_their_engines(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in HEAVY
        and not str(path.relative_to(ROOT)).startswith(HEAVY_HOMES)
        and "workers/engines/text" not in str(path)
    ]
    assert not wrong


def test_only_the_wire_and_what_clients_send_know_msgpack() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in MAY_IMPORT
        for path in modules(package)
        if "msgpack" in set(imports(path))
    ]
    assert sorted(users) == ["gateway/http/functions/pack.py", "shared/wire/codec.py"]


@pytest.mark.parametrize(
    "statement",
    ["import millstream; millstream.Client", "import gateway.app", "import workers.host"],
)
def test_start_up_imports_nothing_heavy(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.split() == []
