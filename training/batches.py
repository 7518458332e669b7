"""Documents as token ids, packed into rows of equal length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.corpus import BOS, EOS, MARKS, SPECIAL, Document

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, and the same ids as labels where the model is to have written them."""

    ids: list[int]
    labels: list[int]


def encode(tokenizer: Tokenizer, documents: Sequence[Document]) -> list[Tokens]:
    """Return the tokens of each document; what users and the system say is read, not learned."""
    texts = [turn.text for document in documents for turn in document.turns]
    encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    bos, eos = SPECIAL.index(BOS), SPECIAL.index(EOS)
    marks = {role: [SPECIAL.index(mark)] if mark else [] for role, mark in MARKS.items()}

    tokens = []
    for document in documents:
        ids, labels = [bos], [IGNORED]
        for turn in document.turns:
            mark, text = marks[turn.role], next(encoded).ids
            written = [*text, eos] if turn.spoken else text
            ids += mark + written
            labels += [IGNORED] * len(mark)
            labels += written if turn.spoken else [IGNORED] * len(written)
        tokens.append(Tokens(ids, labels))
    return tokens


def pack(tokens: Sequence[Tokens], length: int) -> tuple[Tensor, Tensor]:
    """Return ids and labels as (rows, length), documents one after another; the rest is dropped."""
    ids = torch.tensor([i for document in tokens for i in document.ids])
    labels = torch.tensor([i for document in tokens for i in document.labels])
    rows = len(ids) // length
    return ids[: rows * length].view(rows, length), labels[: rows * length].view(rows, length)


def shuffled(
    ids: Tensor, labels: Tensor, batch: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `steps` batches of rows, in a new order each time that all rows have been seen."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(ids), generator=generator)])
        rows, order = order[:batch], order[batch:]
        yield ids[rows], labels[rows]
