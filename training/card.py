"""The model card: what the checkpoint is, how it was made, how good it is."""

from dataclasses import dataclass

from transformers import LlamaConfig

from training.evaluate import Loss, Report

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# tiny-stories

A very small language model in the Llama architecture. It comes with Millstream so that a demo or a
test streams real text from a real model without downloading anything. It tells short stories and
answers simple questions in English.

## How it was made

`python -m training.train --out workers/bundled/model`, from random weights, on two CPU cores. All
of its text is made by `training/corpus.py` from word lists, tables of facts and story plots in this
repository: no text, weights or data from anywhere else.

| | |
|---|---|
| parameters | {parameters:,} (embeddings tied), stored as bfloat16 |
| shape | {layers} layers, width {width}, {heads} heads on {kv_heads} key-value heads |
| vocabulary | {vocabulary} tokens, byte-level BPE: any UTF-8 text round-trips |
| context | {positions} positions, trained on rows of 512 |
| corpus | {documents:,} documents, {megabytes:.1f} MB, {corpus_tokens:,} tokens |
| training | {steps:,} steps, {trained_tokens:,} tokens, {minutes:.0f} minutes |

## How good it is

Measured on the stored weights, on documents from another seed that are not in the corpus. They come
from the same generator, so this says how well the model learned it, not how it does on other text.

| unseen | nats per token | nats per byte | perplexity |
|---|---|---|---|
{losses}

Right answers, greedy: {answers}.

## How to use it

A conversation is `<|bos|><|user|>...<|assistant|>...<|eos|><|user|>...<|assistant|>`, with an
optional `<|system|>...` after the start; the chat template does this. Plain text such as "Once upon
a time" is continued as a story.

## Samples

At temperature 0.8, not chosen:

{samples}

## Limits

It knows a few hundred facts, numbers up to about twenty, and fifteen story plots. On anything else
it says that it does not know, or is wrong. Its stories hold together sentence by sentence, but
names and things often change on the way, and the hero is not always the one that was asked for.
System texts hardly change what it does. It is meant for demos and tests, and for nothing else.

## License

Apache-2.0
"""


@dataclass(frozen=True, slots=True)
class Training:
    """What a training run was, as the card tells it."""

    parameters: int
    config: LlamaConfig
    documents: int
    corpus_bytes: int
    corpus_tokens: int
    trained_tokens: int
    steps: int
    minutes: float


def _row(name: str, loss: Loss) -> str:
    return f"| {name} | {loss.per_token:.3f} | {loss.per_byte:.3f} | {loss.perplexity:.2f} |"


def _sample(prompt: str, text: str) -> str:
    quoted = text.strip().replace("\n", "\n> ")
    return f"**{prompt}**\n\n> {quoted}"


def write(training: Training, report: Report) -> str:
    """Return the card as Markdown."""
    config = training.config
    return CARD.format(
        parameters=training.parameters,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        documents=training.documents,
        megabytes=training.corpus_bytes / 1e6,
        corpus_tokens=training.corpus_tokens,
        steps=training.steps,
        trained_tokens=training.trained_tokens,
        minutes=training.minutes,
        losses="\n".join(
            (_row("stories", report.stories), _row("conversations", report.conversations))
        ),
        answers=", ".join(
            f"{right} of {asked} {kind}" for kind, (right, asked) in report.answers.items()
        ),
        samples="\n\n".join(_sample(prompt, text) for prompt, text in report.samples),
    )
