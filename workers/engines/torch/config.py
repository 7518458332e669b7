"""What a checkpoint's config.json and generation_config.json say, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines.base import ModelLoadError

SUPPORTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
ROPES = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""The rotary scalings that are known, with the numbers that each needs."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Llama-family model.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Width of a head.
        vocab_size: Rows of the embedding.
        norm_eps: Epsilon of the RMS norms.
        context: Positions that the model was made for; a sliding window counts as its end, since
            within it nothing slides.
        tied: Whether the output projection is the embedding.
        dtype: Number type of the checkpoint, as torch names it.
        rope_theta: Base of the rotary frequencies.
        rope_type: How those are scaled, a key of `ROPES`.
        rope: The numbers of that scaling.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    context: int
    tied: bool
    dtype: str
    rope_theta: float
    rope_type: str
    rope: Mapping[str, float]

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read config.json, as transformers 4 or 5 writes it.

        Raises:
            ModelLoadError: It is missing, or describes no model that this engine runs.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise ModelLoadError(
                f"{folder} has no config.json: give the directory of a checkpoint in the "
                "Hugging Face layout"
            )
        raw = read_json(path)
        _check_architecture(folder, raw)
        try:
            return cls._of(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelLoadError(f"{path}: {error!r} is missing or not a number") from error

    @classmethod
    def _of(cls, raw: Mapping[str, Any]) -> ModelConfig:
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        rope = {**rope, "rope_type": rope.get("rope_type") or rope.get("type") or "default"}
        if rope["rope_type"] not in ROPES:
            raise ModelLoadError(
                f"rotary scaling {rope['rope_type']!r} is not supported, {', '.join(ROPES)} are"
            )
        numbers = {key: float(rope[key]) for key in ROPES[rope["rope_type"]]}
        heads = int(raw["num_attention_heads"])
        context = int(raw["max_position_embeddings"])
        if raw.get("sliding_window") and raw.get("use_sliding_window", True):
            context = min(context, int(raw["sliding_window"]))
        return cls(
            layers=int(raw["num_hidden_layers"]),
            hidden=int(raw["hidden_size"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            vocab_size=int(raw["vocab_size"]),
            norm_eps=float(raw["rms_norm_eps"]),
            context=context,
            tied=bool(raw.get("tie_word_embeddings", False)),
            dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
            rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            rope_type=rope["rope_type"],
            rope=numbers,
        )


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the checkpoint's author wants where a request says nothing.

    Attributes:
        temperature: 0 is greedy.
        top_p: 1 is all.
        top_k: 0 is all.
        min_p: 0 is all.
        eos: The tokens that end an answer.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    eos: frozenset[int] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> Defaults:
        """Read generation_config.json, and the end token from config.json where it has none."""
        path = folder / "generation_config.json"
        raw = read_json(path) if path.is_file() else {}
        eos = raw.get("eos_token_id", read_json(folder / "config.json").get("eos_token_id"))
        ids = eos if isinstance(eos, list) else [eos] if eos is not None else []
        return cls(
            temperature=float(_given(raw, "temperature", 1.0)),
            top_p=float(_given(raw, "top_p", 1.0)),
            top_k=int(_given(raw, "top_k", 0)),
            min_p=float(_given(raw, "min_p", 0.0)),
            eos=frozenset(int(token) for token in ids),
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `ModelLoadError` naming the file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} holds no JSON object")
    return value


def _given(raw: Mapping[str, Any], key: str, default: float) -> Any:
    value = raw.get(key)
    return default if value is None else value


def _check_architecture(folder: Path, raw: Mapping[str, Any]) -> None:
    names = raw.get("architectures") or []
    supported = ", ".join(SUPPORTED)
    if not names:
        raise ModelLoadError(
            f"{folder}/config.json names no architecture; this engine runs {supported}"
        )
    if not any("CausalLM" in name for name in names):
        raise ModelLoadError(
            f"{folder} is {names[0]}, not a causal language model; this engine runs {supported}"
        )
    if names[0] not in SUPPORTED:
        raise ModelLoadError(
            f"{folder} is {names[0]}; this engine runs {supported}; vllm runs many more"
        )
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelLoadError(f"{folder}: hidden_act {raw['hidden_act']!r} is not supported")
    if raw.get("quantization_config"):
        raise ModelLoadError(
            f"{folder} is quantized, which this engine cannot read: give the original checkpoint"
        )
