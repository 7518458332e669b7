"""The fingerprint of a checkpoint: differs where a model may answer differently."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


def checkpoint(folder: Path, weights: Iterable[Path], *words: str) -> str:
    """Hash config, tokenizer and template, and of the weights their sizes and samples.

    Args:
        folder: The checkpoint, in the Hugging Face layout.
        weights: Its files of weights; their order counts.
        words: What else the answers depend on.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256("\0".join(words).encode())
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in weights:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:32]
