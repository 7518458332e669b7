"""Weights from safetensors files, fused and laid out for `Llama`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.engines.base import ModelLoadError
from workers.engines.torch.config import ModelConfig, read_json
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
    files: list[Path], config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> tuple[Weights, int]:
    """Read all weights, one tensor at a time, and count the parameters.

    Raises:
        ModelLoadError: A file is broken, or a tensor missing or of another shape.
    """
    try:
        with ExitStack() as stack:
            reader = _Reader(config, dtype, device)
            for path in files:
                reader.add(stack.enter_context(safe_open(path, framework="pt")))
            return reader.read(), reader.parameters
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"the weights in {files[0].parent} are broken: {error}") from error


class _Reader:
    """Takes tensors by name out of open files."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.parameters = 0
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
        parts = ((f"{at}.self_attn.q_proj", queries, self._interleave),
                 (f"{at}.self_attn.k_proj", keys, self._interleave),
                 (f"{at}.self_attn.v_proj", keys, None))  # fmt: skip
        qkv, qkv_bias = self._fuse(*parts)
        out, out_bias = self._linear(f"{at}.self_attn.o_proj", config.hidden, queries)
        up = f"{at}.mlp.up_proj"
        width = self._rows(f"{up}.weight")
        gate_up, gate_up_bias = self._fuse((f"{at}.mlp.gate_proj", width, None), (up, width, None))
        down, down_bias = self._linear(f"{at}.mlp.down_proj", config.hidden, width)
        return Layer(
            norm=self._take(f"{at}.input_layernorm.weight", config.hidden),
            qkv=qkv,
            qkv_bias=qkv_bias,
            out=out,
            out_bias=out_bias,
            mlp_norm=self._take(f"{at}.post_attention_layernorm.weight", config.hidden),
            gate_up=gate_up,
            gate_up_bias=gate_up_bias,
            down=down,
            down_bias=down_bias,
        )

    def _fuse(
        self, *parts: tuple[str, int, Callable[[Tensor], Tensor] | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Several projections of the hidden state as one."""
        weights, biases = [], []
        for name, size, change in parts:
            weight, bias = self._linear(name, size, self._config.hidden)
            weights.append(change(weight) if change else weight)
            if bias is not None:
                biases.append(change(bias) if change else bias)
        return torch.cat(weights), torch.cat(biases) if biases else None

    def _linear(self, name: str, out: int, width: int) -> tuple[Tensor, Tensor | None]:
        weight = self._take(f"{name}.weight", out, width)
        bias = self._take(f"{name}.bias", out) if f"{name}.bias" in self._where else None
        return weight, bias

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
