"""From what vLLM says to outputs: text, stop strings and log probabilities as every engine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import EngineError
from shared.wire import TokenLogprobs
from workers.engines.base import Output
from workers.engines.text import Pieces, TextStream

FINISHES = {"stop": "stop", "length": "length", "repetition": "stop"}
"""vLLM's reasons for an end that is none of ours."""


@dataclass(slots=True)
class Lane:
    """One choice of a job.

    Attributes:
        job: The job's id.
        choice: Which of its choices.
        stream: Detokenizer and stop strings.
        pieces: The vocabulary.
        eos: Tokens that end the answer.
        limit: Tokens of the answer, at most.
        logprobs: How many candidates to name, or None.
        interval: Tokens that are told together, after the first (vLLM's `stream_interval`).
        count: Tokens of the answer so far, the delivered ones included.
        replaying: Delivered tokens that vLLM says again, next first.
        request: Its name in vLLM, once that was asked.
    """

    job: int
    choice: int
    stream: TextStream
    pieces: Pieces
    eos: frozenset[int]
    limit: int
    logprobs: int | None
    interval: int = 1
    count: int = 0
    replaying: list[int] = field(default_factory=list)
    request: str = ""
    _least: int = 1

    def replay(self, delivered: Sequence[int]) -> Output | None:
        """Go through what another worker delivered; the output if that was all of it."""
        for token in delivered:
            finish = self._add(token, None, delivered=True)
            if finish:
                return self._output(finish)
        return self._output("length") if self.count >= self.limit else None

    def take(self, said: Any) -> Output | None:
        """Take a vLLM `EngineCoreOutput`; what can be said now, if anything.

        Raises:
            EngineError: vLLM gave this request up, or did not say again what it was told to.
        """
        tokens: list[int] = said.new_token_ids
        logprobs = None
        if self.logprobs is not None and said.new_logprobs is not None:
            logprobs = self._logprobs(said.new_logprobs, self.logprobs)
        if self.replaying:
            tokens, logprobs = self._replayed(tokens, logprobs)
        finish = None
        for place, token in enumerate(tokens):
            finish = self._add(token, logprobs[place] if logprobs else None)
            if finish:
                break
        reason = said.finish_reason
        if finish is None and reason is not None:
            finish = FINISHES.get(str(reason))
            if finish is None:
                raise EngineError(f"vLLM ended the request: {reason}")
        return self._output(finish)

    def _add(
        self, token: int, logprobs: TokenLogprobs | None, *, delivered: bool = False
    ) -> str | None:
        self.count += 1
        if self.stream.push(token, logprobs, delivered=delivered) or token in self.eos:
            return "stop"
        return "length" if self.count >= self.limit else None

    def _replayed(
        self, tokens: list[int], logprobs: list[TokenLogprobs] | None
    ) -> tuple[list[int], list[TokenLogprobs] | None]:
        """Drop what the client has already."""
        count = min(len(tokens), len(self.replaying))
        if tokens[:count] != self.replaying[:count]:
            raise EngineError("vLLM did not say the delivered tokens again")
        del self.replaying[:count]
        return tokens[count:], logprobs and logprobs[count:]

    def _output(self, finish: str | None) -> Output | None:
        if finish is None and self.stream.decided < self._least:
            return None
        self._least = self.interval
        if finish and not self.stream.stopped:
            self.stream.flush()
        taken = self.stream.take()
        output = Output(self.job, [], "", [], choice=self.choice, finish=finish)
        if taken is not None:
            output.token_ids, output.text, output.ends = taken.token_ids, taken.text, taken.ends
        if self.logprobs is not None:
            output.logprobs = taken.logprobs if taken else []
        if finish:
            output.completion_tokens = self.count
        return output

    def _logprobs(self, said: Any, most: int) -> list[TokenLogprobs]:
        """Read vLLM's `LogprobsLists`: per position the chosen token, then the likeliest."""
        rows = zip(said.logprob_token_ids.tolist(), said.logprobs.tolist(), strict=True)
        found = []
        for ids, values in rows:
            named = dict(zip(ids, values, strict=True))
            best = sorted(named.items(), key=lambda item: -item[1])[:most]
            found.append(
                TokenLogprobs(
                    values[0],
                    tuple((token, self.pieces.label(token), value) for token, value in best),
                )
            )
        return found
