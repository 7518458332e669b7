"""A Llama-family checkpoint with random weights and a byte-level BPE tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog, again and again and again.",
    "A stream is a river that is young; a mill turns where the stream falls.",
    "Numbers such as 1, 22 and 333; names such as Ada, Grace and Edsger.",
]


def make_checkpoint(
    folder: Path, *, architecture: str = "Llama", template: str | None = TEMPLATE, **changes: Any
) -> Path:
    """Write a checkpoint in the Hugging Face layout.

    Args:
        folder: Where to; made if it is not there.
        architecture: Llama, Mistral or Qwen2.
        template: The chat template.
        changes: Fields of the config.
    """
    import torch
    import transformers

    hide_progress: Any = transformers.utils.logging.disable_progress_bar
    hide_progress()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(template)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    config = getattr(transformers, f"{architecture}Config")(**(shape | changes))
    model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder


def small_files(folder: Path) -> list[Path]:
    """Write the least that a fingerprint reads, and a file that it does not; gives the weights."""
    for name, text in (
        ("config.json", '{"model_type": "small"}'),
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
        ("README.md", "not read"),
    ):
        (folder / name).write_text(text)
    weights = [folder / "model-1.safetensors", folder / "model-2.safetensors"]
    weights[0].write_bytes(bytes(range(256)) * 4096)
    weights[1].write_bytes(b"short")
    return weights


def edit_json(path: Path, **changes: Any) -> None:
    """Change some fields of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def _tokenizer(template: str | None) -> Any:
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    make: Any = transformers.PreTrainedTokenizerFast
    tokenizer = make(
        tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = template
    return tokenizer
