"""The Llama decoder, written for small steps: few kernels, fused weights, no copies of the cache.

The mathematics is that of transformers' `LlamaForCausalLM`: rotary angles, softmax and norms in
float32. The rotary halves are interleaved when the weights are loaded, so that a rotation is one
complex product; scores do not change by that, being sums over the head's width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.engines.torch.batch import Batch
from workers.engines.torch.cache import KVCache
from workers.engines.torch.config import ModelConfig
from workers.engines.torch.linear import Linear


@dataclass(slots=True)
class Layer:
    """Weights of one layer.

    Attributes:
        norm: Before attention.
        qkv: Queries, keys and values in one; rotary halves interleaved.
        out: Of the attention.
        mlp_norm: Before the MLP.
        gate_up: Gate and up projections in one.
        down: Of the MLP.
    """

    norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Its linear layers."""
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(slots=True)
class Weights:
    """All of a model.

    Attributes:
        embedding: [vocab_size, hidden].
        layers: In order.
        norm: The last one.
        head: [vocab_size, hidden]; the embedding where tied.
    """

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All of them; a tied head comes twice."""
        found = [self.embedding, self.norm, self.head]
        for layer in self.layers:
            found += [layer.norm, layer.mlp_norm]
            for linear in layer.linears:
                found += linear.tensors
        return found


class Llama:
    """The forward pass.

    Args:
        config: The model's shape.
        weights: On the device; what is not in int8 is in the dtype to compute with.
        context: Positions there are angles for, the scratch position included.

    Attributes:
        weights: As given.
    """

    def __init__(self, config: ModelConfig, weights: Weights, context: int) -> None:
        self._config = config
        self.weights = weights
        self._angles = rotations(config, context).to(weights.embedding.device)
        self._group = config.heads // config.kv_heads

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Compute hidden states [rows * width, hidden], before the last norm; fills the cache."""
        config = self._config
        hidden = F.embedding(batch.tokens, self.weights.embedding)
        angles = self._angles.index_select(0, batch.positions).unsqueeze(1)
        mask = self._mask(batch)
        shape, eps = (config.hidden,), config.norm_eps
        memory = cache.read(batch.first, batch.rows, batch.length)
        turned = config.heads + config.kv_heads
        for number, layer in enumerate(self.weights.layers):
            normed = F.rms_norm(hidden, shape, layer.norm, eps)
            qkv = layer.qkv(normed).view(-1, turned + config.kv_heads, config.head_dim)
            _rotate(qkv[:, :turned], angles)
            cache.write(number, batch.index, qkv[:, config.heads :].reshape(-1, config.head_dim))
            attended = self._attend(qkv[:, : config.heads], *memory[number], mask, batch)
            hidden = hidden + layer.out(attended)
            normed = F.rms_norm(hidden, shape, layer.mlp_norm, eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate).mul_(up))
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, float32, [rows, vocab_size]."""
        config = self._config
        normed = F.rms_norm(hidden, (config.hidden,), self.weights.norm, config.norm_eps)
        return F.linear(normed, self.weights.head).float()

    def _mask(self, batch: Batch) -> Tensor | None:
        """The mask as attention wants it: the heads of a group count as rows of their query."""
        mask = batch.mask
        if mask is None or batch.width == 1:
            return mask if mask is None else mask.expand(-1, -1, self._group, -1)
        return mask.repeat_interleave(self._group, dim=2)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, batch: Batch
    ) -> Tensor:
        """Attention with grouped heads: those that share keys become rows of one query.

        So keys and values are read once and never repeated.
        """
        config, group = self._config, self._group
        rows, width, dim = batch.rows, batch.width, config.head_dim
        if width == 1:
            grouped = queries.reshape(rows, config.kv_heads, group, dim)
        else:
            split = queries.view(rows, width, config.kv_heads, group, dim).transpose(1, 2)
            grouped = split.reshape(rows, config.kv_heads, width * group, dim)
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        if width > 1:
            split = attended.view(rows, config.kv_heads, width, group, dim)
            attended = split.transpose(1, 2)
        return attended.reshape(rows * width, config.heads * dim)


def _rotate(heads: Tensor, angles: Tensor) -> None:
    """Turn heads in place: [tokens, heads, head_dim] by complex [tokens, 1, head_dim / 2]."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(angles)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()).mul_(angles)))


def rotations(config: ModelConfig, positions: int) -> Tensor:
    """The rotary turns, complex64, [positions, head_dim / 2]."""
    frequencies = rotary_frequencies(config)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.complex(angles.cos(), angles.sin())


def rotary_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each pair, float32; scaled as transformers does."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies: Tensor = 1.0 / (config.rope_theta**exponents)
    rope = config.rope
    if config.rope_type == "linear":
        return frequencies / rope["factor"]
    if config.rope_type == "llama3":
        return _llama3(frequencies, rope)
    return frequencies


def _llama3(frequencies: Tensor, rope: Mapping[str, float]) -> Tensor:
    """Llama 3.1: long wavelengths are slowed by a factor, short ones kept, a ramp in between."""
    factor, context = rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    wavelengths = 2 * math.pi / frequencies
    slowed = torch.where(wavelengths > context / low, frequencies / factor, frequencies)
    ramp = (context / wavelengths - low) / (high - low)
    smoothed = (1 - ramp) * slowed / factor + ramp * slowed
    between = (wavelengths >= context / high) & (wavelengths <= context / low)
    return torch.where(between, smoothed, slowed)
