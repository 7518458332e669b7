"""How a choice samples."""

from __future__ import annotations

from dataclasses import dataclass

GREEDY_BELOW = 1e-5
"""A lower temperature is greedy."""
_CANDIDATES = 128  # hold the top_p of nearly every step


@dataclass(frozen=True, slots=True)
class Params:
    """How one choice samples; the fields are those of `shared.wire.Sampling`, all set."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logprobs: int | None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        """Whether what was said before matters."""
        return bool(
            self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        )

    @property
    def filtered(self) -> bool:
        """Whether some tokens are ruled out."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    @property
    def ranked(self) -> int:
        """How many of the likeliest tokens to look at, at first; 0 is none."""
        return self.top_k or (_CANDIDATES if self.top_p < 1.0 else 0)
