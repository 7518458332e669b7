"""How the tokens of one forward pass are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engines.torch.cache import KVCache
from workers.engines.torch.generation import Generation
from workers.engines.torch.scheduler import Prefill

_ALIGNMENT = 8  # CUDA's attention wants masks of such lengths; the cache has room for them


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to compute: `rows` neighbouring slots, `width` tokens of each.

    Attributes:
        first: The first slot.
        rows: How many.
        width: Tokens per slot, padding included.
        tokens: Their ids, [rows * width].
        positions: Where they stand, [rows * width]; padding at the scratch position.
        index: Where their keys and values go, see `KVCache.write`.
        length: Positions to attend to, at most.
        mask: What to add to the scores, [rows, 1, width, length]; None if all is seen.
    """

    first: int
    rows: int
    width: int
    tokens: Tensor
    positions: Tensor
    index: Tensor
    length: int
    mask: Tensor | None


class Layout:
    """Builds batches for one cache.

    Args:
        cache: Where keys and values go.
        device: Where the tensors are wanted.
        dtype: Of the masks, as attention computes.
    """

    def __init__(self, cache: KVCache, device: torch.device, dtype: torch.dtype) -> None:
        self._stride = cache.positions
        self._scratch = cache.scratch
        self._device = device
        self._dtype = dtype
        self._places = torch.arange(cache.positions, device=device)

    def decode(self, lanes: Sequence[Generation]) -> Batch:
        """The latest token of each lane, from slot 0 on."""
        positions = [lane.cached for lane in lanes]
        index = [slot * self._stride + place for slot, place in enumerate(positions)]
        tokens = [lane.answer[-1] for lane in lanes]
        longest = max(positions)
        return self._batch(0, 1, [tokens, positions, index], longest + 1, min(positions) < longest)

    def prefill(self, prefill: Prefill, lanes: Sequence[Generation]) -> Batch:
        """The next tokens of each lane, padded to the same number."""
        width = max(prefill.counts)
        longest = 0
        tokens, positions, index = [], [], []
        for row, (lane, count) in enumerate(zip(lanes, prefill.counts, strict=True)):
            pad, end = width - count, lane.cached + count
            places = [*range(lane.cached, end), *[self._scratch] * pad]
            tokens += lane.next_tokens(count) + [0] * pad
            positions += places
            index += [(prefill.first + row) * self._stride + place for place in places]
            longest = max(longest, end)
        return self._batch(prefill.first, width, [tokens, positions, index], longest, True)

    def padding(self, rows: int, width: int) -> Batch:
        """Nothing but padding, to run the kernels."""
        index = [slot * self._stride + self._scratch for slot in range(rows) for _ in range(width)]
        size = rows * width
        return self._batch(0, width, [[0] * size, [self._scratch] * size, index], 1, True)

    def _batch(
        self, first: int, width: int, columns: list[list[int]], length: int, masked: bool
    ) -> Batch:
        tokens, positions, index = torch.tensor(columns, device=self._device).unbind(0)
        rows = len(tokens) // width
        if not masked:
            return Batch(first, rows, width, tokens, positions, index, length, None)
        if self._device.type != "cpu":
            length = -(-length // _ALIGNMENT) * _ALIGNMENT
        ahead = self._places[:length] > positions.view(rows, 1, width, 1)
        mask = torch.zeros(ahead.shape, dtype=self._dtype, device=self._device)
        mask.masked_fill_(ahead, -torch.inf)
        return Batch(first, rows, width, tokens, positions, index, length, mask)
