"""How good a checkpoint is: loss on unseen text, right answers, and samples to read."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.batches import IGNORED, encode
from training.corpus import ASSISTANT, BOS, USER, Document
from training.facts import CAPITALS

# What transformers loads; its own annotations do not hold for what it returns.
Model = Any
Reader = Any

PLAIN_PROMPTS = ("Once upon a time", "Mia was a shy girl who", "In a land far away,")
CHAT_PROMPTS = (
    "Hello!", "Who are you?", "Tell me a story about a fox.", "What is 7 + 8?",
    "What is the capital of France?", "What is an umbrella for?", "Tell me about the owl.",
    "Write a short poem for me.", "Why is the sky blue?", "Explain quantum physics.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy of what the model is to write, in nats."""

    per_token: float
    per_byte: float

    @property
    def perplexity(self) -> float:
        """The loss as the number of tokens that the model hesitates between."""
        return math.exp(self.per_token)


@dataclass(frozen=True, slots=True)
class Report:
    """What the model card says about a checkpoint."""

    stories: Loss
    conversations: Loss
    answers: dict[str, tuple[int, int]]  # right and all, for each kind of question
    samples: list[tuple[str, str]]  # prompt, text


def load(path: Path) -> tuple[Model, Reader]:
    """Return the model in float32 and the tokenizer, as any user of the checkpoint gets them."""
    model: Model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(path)


@torch.inference_mode()
def held_out(model: Model, tokenizer: Tokenizer, documents: Sequence[Document]) -> Loss:
    """Return the loss on `documents`, each read on its own."""
    nats, count, size = 0.0, 0, 0
    for document, tokens in zip(documents, encode(tokenizer, documents), strict=True):
        labels = torch.tensor(tokens.labels[1:])
        logits = model(input_ids=torch.tensor([tokens.ids])).logits[0, :-1]
        nats += F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        count += int((labels != IGNORED).sum())
        size += sum(len(turn.text.encode()) for turn in document.turns if turn.spoken)
    return Loss(nats / count, nats / size)


@torch.inference_mode()
def generate(
    model: Model,
    tokenizer: Reader,
    prompts: Iterable[str],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 320,
) -> list[str]:
    """Return what the model writes after each rendered prompt, up to the end token."""
    read = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    sampling: dict[str, float] = {"temperature": temperature, "top_k": 0} if temperature else {}
    written = model.generate(
        input_ids=read["input_ids"],
        attention_mask=read["attention_mask"],
        do_sample=temperature > 0,
        max_new_tokens=max_new_tokens,
        **sampling,
    )
    start = read["input_ids"].shape[1]
    return list(tokenizer.batch_decode(written[:, start:], skip_special_tokens=True))


def question(text: str) -> str:
    """Return a rendered conversation in which the model is to answer `text`."""
    return f"{BOS}{USER}{text}{ASSISTANT}"


def right_answers(model: Model, tokenizer: Reader) -> dict[str, tuple[int, int]]:
    """Return how many sums, differences and capitals come out right, greedily."""
    pairs = list(product(range(21), repeat=2))
    kinds = {
        "sums of 0 to 20": {f"What is {a} + {b}?": str(a + b) for a, b in pairs},
        "differences of 0 to 20": {f"What is {a} - {b}?": str(a - b) for a, b in pairs if a >= b},
        "capitals": {f"What is the capital of {name}?": city for name, city in CAPITALS.items()},
    }
    results = {}
    for kind, expected in kinds.items():
        prompts = [question(text) for text in expected]
        told = generate(model, tokenizer, prompts, max_new_tokens=24)
        right = sum(
            re.search(rf"\b{answer}\.$", text) is not None
            for text, answer in zip(told, expected.values(), strict=True)
        )
        results[kind] = (right, len(expected))
    return results


def evaluate(path: Path, stories: Sequence[Document], chats: Sequence[Document]) -> Report:
    """Return the report on the checkpoint at `path`, as it is stored."""
    model, tokenizer = load(path)
    raw = Tokenizer.from_file(str(path / "tokenizer.json"))
    torch.manual_seed(7)
    prompts = [(text, BOS + text) for text in PLAIN_PROMPTS]
    prompts += [(text, question(text)) for text in CHAT_PROMPTS]
    told = generate(model, tokenizer, [rendered for _, rendered in prompts], temperature=0.8)
    return Report(
        stories=held_out(model, raw, stories),
        conversations=held_out(model, raw, chats),
        answers=right_answers(model, tokenizer),
        samples=[(text, answer) for (text, _), answer in zip(prompts, told, strict=True)],
    )
