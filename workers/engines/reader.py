"""From a job's prompt, messages or token ids to token ids that fit the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from shared.errors import InvalidRequest
from shared.wire import Message
from workers.engines.base import Job

HEAD = 16
"""Characters that a token hardly ever exceeds in the mean."""


class PromptReader:
    """A model's tokenizer, and how much of everything a job may ask for.

    Args:
        tokenizer: As transformers loads it; used by one thread at a time.
        vocabulary: Ids are below it.
        context: Tokens of prompt and answer together, at most.
        slots: Choices that run at once, at most.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, context: int, slots: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._context = context
        self._slots = slots

    def ids_of(self, job: Job) -> list[int]:
        """The prompt's ids.

        Raises:
            InvalidRequest: It is empty, too long, or refused by the chat template.
        """
        if job.token_ids is not None:
            self._check_ids(job.token_ids, "token_ids")
            return self._check_length(list(job.token_ids), "token_ids")
        if job.messages is not None:
            return self._encode(self._render(job.messages), "messages", add_special_tokens=False)
        return self._encode(job.prompt or "", "prompt")

    def limit_of(self, job: Job, prompt: int) -> int:
        """How many tokens each of its answers may have after a prompt of so many.

        Raises:
            InvalidRequest: It wants more than the context has room for.
        """
        room = self._context - prompt
        wanted = job.sampling.max_tokens
        if wanted is None:
            return room
        if wanted > room:
            raise InvalidRequest(
                f"prompt of {prompt} tokens + max_tokens {wanted} > context of {self._context}: "
                f"ask for at most {room}",
                field="sampling.max_tokens",
            )
        return wanted

    def delivered_of(self, job: Job) -> list[tuple[int, ...]]:
        """What was delivered of each choice.

        Raises:
            InvalidRequest: There are too many choices, or ids that are not the model's.
        """
        choices = job.sampling.n
        if choices > self._slots:
            raise InvalidRequest(
                f"n {choices} is more than the {self._slots} choices run at once",
                field="sampling.n",
            )
        if len(job.delivered) > choices:
            raise InvalidRequest(
                f"{len(job.delivered)} delivered answers for n {choices}", field="sampling.n"
            )
        for ids in job.delivered:
            self._check_ids(ids, "delivered")
        return [*job.delivered, *[()] * (choices - len(job.delivered))]

    def _render(self, messages: Sequence[Message]) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidRequest(
                "the model has no chat template: send a prompt instead", field="messages"
            )
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", field="messages"
            ) from error

    def _encode(self, text: str, field: str, **options: bool) -> list[int]:
        """The ids of a text; of one that is much too long, its beginning alone decides that.

        Megabytes take seconds, in which nobody else's prompt is read.
        """
        context = self._context
        if len(text) > 2 * HEAD * context:
            head = len(self._tokenizer.encode(text[: HEAD * context], **options))
            if head > 2 * context:
                raise InvalidRequest(
                    f"the prompt has more than {head} tokens; with a context of {context} it may "
                    f"have {context - 1}",
                    field=field,
                )
        return self._check_length(self._tokenizer.encode(text, **options), field)

    def _check_ids(self, ids: Sequence[int], field: str) -> None:
        size = self._vocabulary
        for token in ids:
            if not 0 <= token < size:
                raise InvalidRequest(
                    f"token id {token} is not in the vocabulary of {size}", field=field
                )

    def _check_length(self, ids: list[int], field: str) -> list[int]:
        context = self._context
        if not ids:
            raise InvalidRequest("the prompt has no tokens", field=field)
        if len(ids) >= context:
            raise InvalidRequest(
                f"the prompt has {len(ids)} tokens; with a context of {context} it may have "
                f"{context - 1}",
                field=field,
            )
        return ids
