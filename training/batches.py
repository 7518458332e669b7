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


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents one after another, as tensors of (rows, length).

    A position counts from the start of its document: transformers takes a jump in them as the
    border of a document, and lets no token look across it.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor

    def __getitem__(self, which: Tensor) -> "Rows":
        """Return the rows with these numbers."""
        return Rows(self.ids[which], self.labels[which], self.positions[which])


def pack(tokens: Sequence[Tokens], length: int) -> Rows:
    """Return the documents as rows of `length`; what does not fill a row is dropped."""
    columns = (
        [i for document in tokens for i in document.ids],
        [i for document in tokens for i in document.labels],
        [i for document in tokens for i in range(len(document.ids))],
    )
    count = len(columns[0]) // length
    return Rows(*(torch.tensor(c[: count * length]).view(count, length) for c in columns))


def shuffled(rows: Rows, batch: int, steps: int, seed: int) -> Iterator[Rows]:
    """Yield `steps` batches of rows, in a new order each time that all rows have been seen."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(rows.ids), generator=generator)])
        chosen, order = order[:batch], order[batch:]
        yield rows[chosen]
