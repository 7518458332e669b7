"""A checkpoint's fingerprint stays what it is: workers of two versions must agree on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.checkpoint import small_files
from workers.engines.fingerprint import checkpoint


@pytest.mark.parametrize(
    ("words", "digest"),
    [
        (("small", "torch.float32"), "3f4ff3a5b83a862d7a2946e37781b091"),
        (("small", "torch.bfloat16", "int8"), "fe7fd7e8c7ba1d416d87e1e9a36002b7"),
        (("vllm", "small", "torch.bfloat16", "None"), "6b75ba668fc56b0b89d147f6453a3da1"),
    ],
)
def test_the_digest_is_pinned(tmp_path: Path, words: tuple[str, ...], digest: str) -> None:
    assert checkpoint(tmp_path, small_files(tmp_path), *words) == digest


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "model-1.safetensors"])
def test_what_changes_answers_changes_it(tmp_path: Path, name: str) -> None:
    weights = small_files(tmp_path)
    before = checkpoint(tmp_path, weights)
    (tmp_path / "README.md").write_text("something else")
    assert checkpoint(tmp_path, weights) == before
    with (tmp_path / name).open("ab") as file:
        file.write(b" ")
    assert checkpoint(tmp_path, weights) != before
