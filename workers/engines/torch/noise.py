"""Noise that is a function of (seed, position, token), the same on every worker.

A change here changes what seeds mean and breaks continuations between versions.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


class Noise:
    """Makes rows of noise from keys.

    Args:
        vocab_size: Columns.
        device: Where the rows are wanted.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._salt = _salt(vocab_size).to(device)

    def log_exponentials(self, keys: list[int]) -> Tensor:
        """Logarithms of exponential noise, [keys, vocab_size]: Gumbel noise with a minus.

        23 bits of a hash of key and token make a number strictly between 0 and 1 that float32
        holds exactly.
        """
        factors = self._words([(key & 0xFFFFFFFF) | 1 for key in keys])
        offsets = self._words([key >> 32 for key in keys])
        bits = self._salt * factors.unsqueeze(1) + offsets.unsqueeze(1)
        bits ^= (bits >> 15) & 0x1FFFF
        bits *= 0x2C1B3C6D
        bits ^= (bits >> 12) & 0xFFFFF
        bits *= 0x297A2D39
        uniform = ((bits >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)
        return uniform.log_().neg_().log_()

    def _words(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device).to(torch.int32)


def mix(seed: int, counter: int) -> int:
    """64 well-mixed bits of two numbers (splitmix64, twice)."""
    return _splitmix(_splitmix(seed & _MASK) ^ counter)


def _splitmix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _salt(vocab_size: int) -> Tensor:
    """A fixed random int32 per token."""
    words = [_splitmix(token) >> 32 for token in range(vocab_size)]
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)
