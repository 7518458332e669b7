"""What a model of vLLM's is told by: pinned, since workers of two versions must agree on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.engines.checkpoint import small_files
from workers.engines.vllm.loading import fingerprint_of


def config(**found: str) -> SimpleNamespace:
    return SimpleNamespace(
        dtype="torch.bfloat16",
        quantization=None,
        hf_config=SimpleNamespace(**found),
        revision="main",
    )


def test_a_folder_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    small_files(tmp_path)
    assert fingerprint_of(str(tmp_path), config(), "small") == "6b75ba668fc56b0b89d147f6453a3da1"


@pytest.mark.parametrize(
    ("found", "digest"),
    [
        ({"_commit_hash": "abc"}, "df8953cd32641124b3e99dc8ced5bae3"),
        ({}, "dc78ed0f72d74d5e215af499cf458480"),
    ],
)
def test_one_of_the_hub_by_its_commit(found: dict[str, str], digest: str) -> None:
    assert fingerprint_of("a/b", config(**found), "small") == digest
