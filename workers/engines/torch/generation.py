"""One choice of one job from its first token to its last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.wire import TokenLogprobs
from workers.engines.base import Output
from workers.engines.text import Pieces, TextStream
from workers.engines.torch.params import Params
from workers.engines.torch.sampler import Candidates
from workers.engines.torch.scheduler import Lane


@dataclass(slots=True, eq=False, kw_only=True)
class Generation(Lane):
    """A lane with what it says.

    Attributes:
        choice: Which of the job's choices.
        prompt: The prompt's ids, shared by the choices.
        params: How it samples.
        pieces: The vocabulary.
        stream: Detokenizer and stop strings.
        eos: Tokens that end the answer.
        limit: Tokens of the answer, at most.
        answer: Its tokens so far, the delivered ones included.
        history: The sampler's own.
        announces: Whether its first output is the job's first, which carries the prompt.
    """

    choice: int
    prompt: list[int]
    params: Params
    pieces: Pieces
    stream: TextStream
    eos: frozenset[int]
    limit: int
    answer: list[int] = field(default_factory=list)
    history: Any = None
    announces: bool = False

    def replay(self, delivered: Sequence[int]) -> Output | None:
        """Go through what another worker delivered; the output if that was all of it."""
        for token in delivered:
            finish = self._add(token, None, delivered=True)
            if finish:
                return self._output(finish)
        self.size = len(self.prompt) + len(self.answer)
        return self._output("length") if len(self.answer) >= self.limit else None

    def accept(self, token: int, candidates: Candidates | None = None) -> Output | None:
        """Add a sampled token; what can be said now, if anything."""
        return self._output(self._add(token, self._logprobs(candidates)))

    def next_tokens(self, count: int) -> list[int]:
        """The next `count` of prompt and delivered answer that are not in the cache."""
        start, end = self.cached, self.cached + count
        split = len(self.prompt)
        if end <= split:
            return self.prompt[start:end]
        return self.prompt[start:] + self.answer[max(0, start - split) : end - split]

    def _add(
        self, token: int, logprobs: TokenLogprobs | None, *, delivered: bool = False
    ) -> str | None:
        """Take one token; why the answer ends with it, or None."""
        self.answer.append(token)
        if self.stream.push(token, logprobs, delivered=delivered) or token in self.eos:
            return "stop"
        return "length" if len(self.answer) >= self.limit else None

    def _output(self, finish: str | None) -> Output | None:
        if finish and not self.stream.stopped:
            self.stream.flush()
        taken = self.stream.take()
        if taken is None and finish is None and not self.announces:
            return None
        output = Output(self.job, [], "", [], choice=self.choice, finish=finish)
        if taken is not None:
            output.token_ids, output.text, output.ends = taken.token_ids, taken.text, taken.ends
        if self.params.logprobs is not None:
            output.logprobs = taken.logprobs if taken else []
        if finish:
            output.completion_tokens = len(self.answer)
        if self.announces:
            output.prompt_ids = self.prompt
            self.announces = False
        return output

    def _logprobs(self, candidates: Candidates | None) -> TokenLogprobs | None:
        if candidates is None:
            return None
        label = self.pieces.label
        top = zip(candidates.ids, candidates.logprobs, strict=True)
        return TokenLogprobs(
            candidates.chosen, tuple((token, label(token), value) for token, value in top)
        )
