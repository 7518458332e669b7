"""The linear layers, with weights in float or in int8.

int8 is of the weights only: each row (output channel) is whole numbers from -127 to 127 times one
scale, and activations stay in float. A call turns a block of rows at a time into float, so that no
float copy of a weight is ever whole. torch has an operator of its own for this,
`_weight_int8pack_mm`, which is not used: in torch 2.13 on CPU it is several times slower than this
for float32, and for bfloat16 it crashes or gives nan where the width is no multiple of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_LARGEST = 127
_CPU_BLOCK, _BLOCK = 1 << 19, 1 << 24  # weights; as float they fit a cache of the device


class Linear(Protocol):
    """Maps [tokens, in] to [tokens, out]."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Apply it."""

    @property
    def tensors(self) -> list[Tensor]:
        """All that it keeps."""


class Float:
    """A layer in float.

    Args:
        weight: [out, in].
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, inputs: Tensor) -> Tensor:
        """Apply it."""
        return F.linear(inputs, self._weight, self._bias)

    @property
    def tensors(self) -> list[Tensor]:
        """Weight, and bias where there is one."""
        return [self._weight] if self._bias is None else [self._weight, self._bias]


class Int8:
    """A layer whose weight is in int8.

    Args:
        weight: int8, [out, in].
        scale: Of each row, [out], in the dtype of the activations.
        bias: [out], or None.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._scale = scale
        self._bias = bias
        rows = max(1, (_CPU_BLOCK if weight.is_cpu else _BLOCK) // weight.shape[1])
        starts = range(0, weight.shape[0], rows)
        self._blocks = [weight[start : start + rows] for start in starts]
        self._scales = [scale[start : start + rows, None] for start in starts]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Apply it."""
        if inputs.dtype == torch.float32:  # scaling the outputs is the lesser work
            outputs = joined([F.linear(inputs, block.float()) for block in self._blocks])
            outputs = outputs.mul_(self._scale)
        else:  # in 16 bits unscaled outputs could overflow
            pairs = zip(self._blocks, self._scales, strict=True)
            outputs = joined([F.linear(inputs, block * scale) for block, scale in pairs])
        return outputs if self._bias is None else outputs.add_(self._bias)

    @property
    def tensors(self) -> list[Tensor]:
        """Weight and scale, and bias where there is one."""
        kept = [self._weight, self._scale]
        return kept if self._bias is None else [*kept, self._bias]


def quantise(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A weight [out, in] as int8 and the scale of each row in `dtype`.

    The numbers are rounded for the scale as it is stored, so that its own rounding costs nothing.

    Raises:
        ValueError: The weight holds a number that is not finite.
    """
    exact = weight.float()
    scale = (exact.abs().amax(dim=1) / _LARGEST).to(dtype)
    if not scale.isfinite().all():
        raise ValueError("a number in it is not finite")
    divisor = scale.float().unsqueeze(1)
    divisor = torch.where(divisor == 0, 1.0, divisor)
    numbers = (exact / divisor).round_().clamp_(-_LARGEST, _LARGEST)
    return numbers.to(torch.int8), scale


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts put together along the last dimension; one part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=-1)
