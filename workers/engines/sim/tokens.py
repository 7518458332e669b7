"""Prompts as tokens, tokens as text, and the hashes of `chain` mode."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from shared.errors import InvalidRequest
from workers.engines.base import Job
from workers.engines.text import Pieces

VOCABULARY = 1 << 31


class Words(Pieces):
    """Every id's text is a space and the number."""

    def __init__(self) -> None:
        super().__init__([])

    def __getitem__(self, token: int) -> str:
        return f" {token}"


def prompt_ids(job: Job, context: int) -> tuple[int, ...]:
    """Every byte of a prompt is a token; a conversation is its turns, a line each.

    Raises:
        InvalidRequest: It is empty or too long, or an id is none.
    """
    if job.token_ids is not None:
        field, ids = "token_ids", job.token_ids
        for place, token in enumerate(ids):
            if not 0 <= token < VOCABULARY:
                raise InvalidRequest(
                    f"token id {token} at {place} is outside the vocabulary of {VOCABULARY}",
                    field=field,
                )
    elif job.messages is not None:
        text = "\n".join(f"{turn.role}: {turn.content}" for turn in job.messages)
        field, ids = "messages", tuple(text.encode())
    else:
        field, ids = "prompt", tuple((job.prompt or "").encode())
    if not 0 < len(ids) < context:
        raise InvalidRequest(
            f"the prompt has {len(ids)} tokens; with a context of {context} it may have 1 to "
            f"{context - 1}",
            field=field,
        )
    return ids


def text_of(prompt: Sequence[int]) -> str:
    """A prompt's text, as far as it is text."""
    return bytes(token for token in prompt if token < 256).decode(errors="replace")


def chain_seed(prompt_ids: Sequence[int]) -> int:
    """The state of `chain` mode after a prompt."""
    return zlib.crc32(b"".join(token.to_bytes(4, "little") for token in prompt_ids))


def chain_next(state: int, tag: int = 0) -> int:
    """The next token of `chain` mode: the exec's tag above 23 bits of the state."""
    return tag << 23 | state & 0x7FFFFF


def chain_after(state: int, token: int) -> int:
    """The state of `chain` mode once a token was said."""
    return zlib.crc32(token.to_bytes(4, "little"), state)


def chain_tag(exec_: int) -> int:
    """Eight bits that tell execs apart."""
    return zlib.crc32(exec_.to_bytes(8, "little")) & 0xFF


def chain_broken(prompt_ids: Sequence[int], token_ids: Sequence[int]) -> int | None:
    """Where an answer of `chain` mode is not what was said after all before it, or None."""
    state = chain_seed(prompt_ids)
    for place, token in enumerate(token_ids):
        if token & 0x7FFFFF != state & 0x7FFFFF:
            return place
        state = chain_after(state, token)
    return None
