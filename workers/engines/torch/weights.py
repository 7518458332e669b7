"""Weights from safetensors files, fused and laid out for `Llama`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.engines.base import ModelLoadError
from workers.engines.torch.config import ModelConfig, read_json
from workers.engines.torch.linear import Float, Int8, Linear, joined, quantise
from workers.engines.torch.model import Layer, Weights

_INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files: the one, or those that the index names."""
    if (folder / _INDEX).is_file():
        names = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        hint = (
            "; it has pytorch_model.bin: save it again with safe_serialization=True"
            if (folder / "pytorch_model.bin").is_file()
            else ""
        )
        raise ModelLoadError(f"{folder} has no weights {', '.join(missing) or _INDEX}{hint}")
    return files


def read_weights(
    files: list[Path],
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    int8: bool = False,
) -> tuple[Weights, int]:
    """Read all weights, one tensor at a time, and count the parameters.

    Args:
        files: As `weight_files` gives them.
        config: The model's shape.
        dtype: To compute with.
        device: Where to.
        int8: Whether the linear layers of the decoder are in int8.

    Raises:
        ModelLoadError: A file is broken, or a tensor missing, of another shape, or not to be had
            in int8.
    """
    try:
        with ExitStack() as stack:
            reader = _Reader(config, dtype, device, int8)
            for path in files:
                reader.add(stack.enter_context(safe_open(path, framework="pt")))
            return reader.read(), reader.parameters
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"the weights in {files[0].parent} are broken: {error}") from error


def _same(tensor: Tensor) -> Tensor:
    return tensor


class _Part(NamedTuple):
    """A projection of the checkpoint: its name, its rows, and what to do with their order."""

    name: str
    size: int
    change: Callable[[Tensor], Tensor] = _same


class _Reader:
    """Takes tensors by name out of open files."""

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype, device: torch.device, int8: bool
    ) -> None:
        self.parameters = 0
        self._int8 = int8
        self._config = config
        self._dtype = dtype
        self._device = device
        self._where: dict[str, Any] = {}

    def add(self, file: Any) -> None:
        self._where.update(dict.fromkeys(file.keys(), file))

    def read(self) -> Weights:
        config = self._config
        embedding = self._take("model.embed_tokens.weight", config.vocab_size, config.hidden)
        head = embedding
        if not config.tied:
            head = self._take("lm_head.weight", config.vocab_size, config.hidden)
        layers = [self._layer(f"model.layers.{number}") for number in range(config.layers)]
        return Weights(embedding, layers, self._take("model.norm.weight", config.hidden), head)

    def _layer(self, at: str) -> Layer:
        config = self._config
        queries = config.heads * config.head_dim
        keys = config.kv_heads * config.head_dim
        attention, mlp = f"{at}.self_attn", f"{at}.mlp"
        width = self._rows(f"{mlp}.up_proj.weight")
        return Layer(
            norm=self._take(f"{at}.input_layernorm.weight", config.hidden),
            qkv=self._linear(
                config.hidden,
                _Part(f"{attention}.q_proj", queries, self._interleave),
                _Part(f"{attention}.k_proj", keys, self._interleave),
                _Part(f"{attention}.v_proj", keys),
            ),
            out=self._linear(queries, _Part(f"{attention}.o_proj", config.hidden)),
            mlp_norm=self._take(f"{at}.post_attention_layernorm.weight", config.hidden),
            gate_up=self._linear(
                config.hidden, _Part(f"{mlp}.gate_proj", width), _Part(f"{mlp}.up_proj", width)
            ),
            down=self._linear(width, _Part(f"{mlp}.down_proj", config.hidden)),
        )

    def _linear(self, width: int, *parts: _Part) -> Linear:
        """Several projections of the same `width` inputs as one; int8 is made of one at a time."""
        weights, scales, biases = [], [], []
        for part in parts:
            weight = part.change(self._take(f"{part.name}.weight", part.size, width))
            if self._int8:
                weight, scale = self._quantise(part.name, weight)
                scales.append(scale)
            weights.append(weight)
            if f"{part.name}.bias" in self._where:
                biases.append(part.change(self._take(f"{part.name}.bias", part.size)))
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = joined(biases) if biases else None
        return Int8(weight, joined(scales), bias) if scales else Float(weight, bias)

    def _quantise(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return quantise(weight, self._dtype)
        except ValueError as error:
            raise ModelLoadError(
                f"the weight {name}.weight cannot be made int8, {error}: the checkpoint is "
                "damaged; if it is not, choose another dtype"
            ) from error

    def _interleave(self, rows: Tensor) -> Tensor:
        """Bring the two halves of each head, which rotate together, next to each other."""
        half = self._config.head_dim // 2
        return rows.view(-1, 2, half, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    def _rows(self, name: str) -> int:
        self._check(name)
        return int(self._where[name].get_slice(name).get_shape()[0])

    def _take(self, name: str, *shape: int) -> Tensor:
        self._check(name)
        tensor: Tensor = self._where[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"the weight {name} is {tuple(tensor.shape)}, by config.json it must be {shape}"
            )
        self.parameters += tensor.numel()
        return tensor.to(self._device, self._dtype)

    def _check(self, name: str) -> None:
        if name not in self._where:
            raise ModelLoadError(f"the checkpoint has no weight {name}")
