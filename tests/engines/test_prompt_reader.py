"""Prompts that are too long, and what finding that out costs."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from shared.errors import InvalidRequest
from shared.wire import Message, Sampling
from workers import bundled
from workers.engines.base import Job
from workers.engines.reader import HEAD, PromptReader

CONTEXT = 64


class Counting:
    """The bundled model's tokenizer, and how many characters it was given at most."""

    def __init__(self) -> None:
        self._own: Any = transformers.AutoTokenizer.from_pretrained(bundled.PATH)
        self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def encode(self, text: str, **options: Any) -> list[int]:
        self.most = max(self.most, len(text))
        ids: list[int] = self._own.encode(text, **options)
        return ids


@pytest.fixture
def tokenizer() -> Counting:
    return Counting()


def read(
    tokenizer: Counting, *, prompt: str | None = None, messages: tuple[Message, ...] | None = None
) -> list[int]:
    reader = PromptReader(tokenizer, 50_000, CONTEXT, 4)
    return reader.ids_of(Job(1, prompt, messages, None, Sampling()))


def test_the_count_is_told_where_it_is_cheap(tokenizer: Counting) -> None:
    text = "a cat sat " * 30
    count = len(tokenizer.encode(text))
    with pytest.raises(InvalidRequest, match=rf"the prompt has {count} tokens; .* have 63$"):
        read(tokenizer, prompt=text)
    assert read(tokenizer, prompt="a cat sat") == tokenizer.encode("a cat sat")


def test_megabytes_are_refused_by_their_beginning(tokenizer: Counting) -> None:
    text = "hello world " * 300_000
    with pytest.raises(InvalidRequest, match=r"more than 343 tokens; .* have 63$") as told:
        read(tokenizer, prompt=text)
    assert told.value.field == "prompt"
    with pytest.raises(InvalidRequest, match="more than"):
        read(tokenizer, messages=(Message("user", text),))
    assert tokenizer.most == HEAD * CONTEXT


def test_a_beginning_of_few_tokens_decides_nothing() -> None:
    class Long(Counting):
        """Its tokens are longer than anybody's: a hundred characters each."""

        def encode(self, text: str, **options: Any) -> list[int]:
            return [1] * (len(text) // 100)

    assert len(read(Long(), prompt="x" * 3000)) == 30
