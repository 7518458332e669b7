"""Train the bundled model: `python -m training.train --out workers/bundled/model`."""

import argparse
import math
import time
from itertools import islice
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training import batches, card, tokenizer
from training.corpus import BOS, EOS, PAD, SPECIAL, Document, documents
from training.evaluate import evaluate

SEED = 20
HELD_OUT_SEED = 21
VOCABULARY = 1536
MAX_POSITIONS = 1024
ROW = 512
BATCH = 6
MUON_RATE = 5e-3
ADAM_RATE = 2.5e-3
WARM_UP = 50


def architecture() -> LlamaConfig:
    """Return the shape of the model: three layers, grouped-query attention, tied embeddings."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index(BOS),
        eos_token_id=SPECIAL.index(EOS),
        pad_token_id=SPECIAL.index(PAD),
    )


def schedule(step: int, steps: int) -> float:
    """Return the share of the peak rate: a linear warm-up, then a cosine down to a fiftieth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, steps - WARM_UP)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def optimizers(model: LlamaForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Muon for the matrices of the layers and AdamW for the rest, with their peak rates.

    Muon learns facts that are rarely seen in fewer steps than AdamW alone, which is what a
    training of minutes is short of.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, MUON_RATE), (adam, ADAM_RATE)]


def fit(model: LlamaForCausalLM, rows: batches.Rows, steps: int) -> None:
    """Train `model` in place for `steps` batches, with bfloat16 arithmetic."""
    steppers = optimizers(model)
    model.train()
    start = time.monotonic()
    for step, batch in enumerate(batches.shuffled(rows, BATCH, steps, seed=SEED)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(
                input_ids=batch.ids,
                labels=batch.labels,
                position_ids=batch.positions,
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in steppers:
            for group in optimizer.param_groups:
                group["lr"] = peak * schedule(step, steps)
            optimizer.step()
        model.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.monotonic() - start
            print(f"step {step:5d}  loss {loss.item():.3f}  {seconds:4.0f} s", flush=True)


def save(model: LlamaForCausalLM, out: Path) -> None:
    """Write the weights as bfloat16, with the configurations of model and generation."""
    model.bfloat16().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes files for its user only


def unseen(known: set[str], count: int, *, plain: bool) -> list[Document]:
    """Return documents from another seed whose text is not in `known`."""
    fresh = (
        document
        for document in documents(HELD_OUT_SEED, 40 * count)
        if (document.turns[0].role == "text") == plain and document.render() not in known
    )
    return list(islice(fresh, count))


def main() -> None:
    """Make the corpus, learn the tokenizer, train, save, evaluate and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--steps", type=int, default=1100, help="batches to train on")
    parser.add_argument("--documents", type=int, default=40_000, help="size of the corpus")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to use")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)

    texts = list(documents(SEED, options.documents))
    bpe = tokenizer.learn(texts[:8000], VOCABULARY)
    rows = batches.pack(batches.encode(bpe, texts), ROW)
    size = sum(len(document.render().encode()) for document in texts)
    print(f"{len(texts)} documents, {size} bytes, {rows.ids.numel()} tokens", flush=True)

    model = LlamaForCausalLM(architecture())
    start = time.monotonic()
    fit(model, rows, options.steps)
    minutes = (time.monotonic() - start) / 60
    save(model, options.out)
    tokenizer.save(bpe, options.out, MAX_POSITIONS)

    known = {document.render() for document in texts}
    report = evaluate(options.out, unseen(known, 200, plain=True), unseen(known, 200, plain=False))
    facts = card.Training(
        parameters=model.num_parameters(),
        config=model.config,
        documents=len(texts),
        corpus_bytes=size,
        corpus_tokens=rows.ids.numel(),
        trained_tokens=options.steps * BATCH * ROW,
        steps=options.steps,
        minutes=minutes,
    )
    text = card.write(facts, report)
    (options.out / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
