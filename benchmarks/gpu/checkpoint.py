"""A Llama checkpoint with random weights and the bundled tokenizer, in the Hugging Face layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "workers" / "bundled" / "model"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

SIZES: dict[str, dict[str, int]] = {
    # The shape of Llama 3.2 1B: 1.24 B parameters with its tied embedding.
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128256,
    },
    # To try the benchmark itself where there is no GPU.
    "tiny": {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "vocab_size": 2048,
    },
}  # fmt: skip


def make(folder: Path, size: str, *, context: int, device: str) -> int:
    """Write the checkpoint; returns its number of parameters."""
    shape = SIZES[size]
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        **shape, "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "max_position_embeddings": context, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "dtype": "bfloat16", "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER:
        if (BUNDLED / name).exists():
            shutil.copy(BUNDLED / name, folder / name)
    generator = torch.Generator(device).manual_seed(7)
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    heads, kv = shape["num_attention_heads"], shape["num_key_value_heads"]
    width = shape["head_dim"]
    matrices = {"model.embed_tokens.weight": (shape["vocab_size"], hidden)}
    for layer in range(shape["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        matrices |= {
            f"{at}.self_attn.q_proj.weight": (heads * width, hidden),
            f"{at}.self_attn.k_proj.weight": (kv * width, hidden),
            f"{at}.self_attn.v_proj.weight": (kv * width, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, heads * width),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
        }
    tensors = {
        name: (torch.randn(size_, generator=generator, device=device, dtype=torch.float32) * 0.02)
        .to(torch.bfloat16)
        .cpu()
        for name, size_ in matrices.items()
    }
    norms = ["model.norm.weight"]
    for layer in range(shape["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        norms += [f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight"]
    tensors |= {name: torch.ones(hidden, dtype=torch.bfloat16) for name in norms}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return sum(tensor.numel() for tensor in tensors.values())
