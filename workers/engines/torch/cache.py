"""The KV cache: one preallocated row of positions per slot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.engines.torch.config import ModelConfig
from workers.engines.torch.scheduler import Copy

_ALIGNMENT = 16  # positions; CUDA's attention kernels want masks of aligned length


class KVCache:
    """Keys and values of every slot, [layers, slots, 2 * kv_heads, positions, head_dim].

    The positions of a head lie together, since attention reads them all and that is most of the
    memory traffic. There is at least one position more than the context: `scratch`, where padding
    is written and which is never read as anything. Zeroed, since what is masked in attention must
    still be finite.

    Args:
        config: The model's shape.
        slots: Rows.
        context: Tokens a row can hold.
        dtype: Of keys and values.
        device: Where they live.

    Attributes:
        scratch: The position for padding.
        positions: Positions per row as allocated.
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.scratch = context
        self.positions = positions_for(context)
        heads = config.kv_heads
        self._rows = torch.zeros(
            (config.layers, slots, 2 * heads, self.positions, config.head_dim),
            dtype=dtype,
            device=device,
        )
        self._flat = self._rows.view(config.layers, -1, config.head_dim).unbind(0)
        self._keys, self._values = self._rows[:, :, :heads], self._rows[:, :, heads:]
        self._heads = torch.arange(2 * heads, device=device) * self.positions

    def index(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Where the keys and values of tokens go, for `write`: [tokens * 2 * kv_heads]."""
        first = slots * (len(self._heads) * self.positions) + positions
        return (first.unsqueeze(1) + self._heads).view(-1)

    def write(self, layer: int, index: Tensor, keys_values: Tensor) -> None:
        """Store tokens' keys and values.

        Args:
            layer: Which layer.
            index: As `index` gives it.
            keys_values: [tokens * 2 * kv_heads, head_dim].
        """
        self._flat[layer].index_copy_(0, index, keys_values)

    def read(self, first: int, count: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Per layer keys and values of `count` slots from `first` on, up to `length` (views)."""
        slots = slice(first, first + count)
        keys = self._keys[:, slots, :, :length].unbind(0)
        values = self._values[:, slots, :, :length].unbind(0)
        return list(zip(keys, values, strict=True))

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy rows, in order."""
        for source, target, length in copies:
            self._rows[:, target, :, :length] = self._rows[:, source, :, :length]

    def clear(self, slot: int) -> None:
        """Zero a row that may hold values that are not finite."""
        self._rows[:, slot].zero_()


def positions_for(context: int) -> int:
    """Positions to allocate for a context: it, the scratch position, and up to the alignment."""
    return -(-(context + 1) // _ALIGNMENT) * _ALIGNMENT


def cache_bytes(config: ModelConfig, slots: int, context: int, dtype: torch.dtype) -> int:
    """Size of a cache."""
    token = config.layers * 2 * config.kv_heads * config.head_dim * dtype.itemsize
    return slots * positions_for(context) * token
