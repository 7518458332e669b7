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
        index: Where their keys and values go, from `KVCache.index`.
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
        self._cache = cache
        self._scratch = cache.scratch
        self._device = device
        self._dtype = dtype
        self._places = torch.arange(cache.positions, device=device)

    def decode(self, lanes: Sequence[Generation]) -> Batch:
        """The latest token of each lane, from slot 0 on."""
        tokens = [lane.answer[-1] for lane in lanes]
        positions = [lane.cached for lane in lanes]
        slots = list(range(len(lanes)))
        longest = max(positions)
        masked = min(positions) < longest
        return self._batch(1, (tokens, positions, slots), longest + 1, masked)

    def prefill(self, prefill: Prefill, lanes: Sequence[Generation]) -> Batch:
        """The next tokens of each lane, padded to the same number."""
        width = max(prefill.counts)
        longest = 0
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for row, (lane, count) in enumerate(zip(lanes, prefill.counts, strict=True)):
            pad, end = width - count, lane.cached + count
            tokens += lane.next_tokens(count) + [0] * pad
            positions += [*range(lane.cached, end), *[self._scratch] * pad]
            slots += [prefill.first + row] * width
            longest = max(longest, end)
        return self._batch(width, (tokens, positions, slots), longest, masked=True)

    def padding(self, width: int) -> Batch:
        """Nothing but padding in slot 0, to run the kernels."""
        return self._batch(width, ([0] * width, [self._scratch] * width, [0] * width), 1, True)

    def _batch(
        self,
        width: int,
        columns: tuple[list[int], list[int], list[int]],
        length: int,
        masked: bool,
    ) -> Batch:
        """Put ids, positions and slots on the device, with a mask where one is needed."""
        first = columns[2][0]
        tokens, positions, slots = torch.tensor(columns, device=self._device).unbind(0)
        rows = len(tokens) // width
        mask = None
        if masked:
            if self._device.type != "cpu":
                length = -(-length // _ALIGNMENT) * _ALIGNMENT
            ahead = self._places[:length] > positions.view(rows, 1, width, 1)
            mask = torch.zeros(ahead.shape, dtype=self._dtype, device=self._device)
            mask.masked_fill_(ahead, -torch.inf)
        index = self._cache.index(slots, positions)
        return Batch(first, rows, width, tokens, positions, index, length, mask)
