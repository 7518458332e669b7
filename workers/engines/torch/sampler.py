"""Logits to tokens, for the whole batch at once.

Randomness is a function of (seed, position in the answer, token) and of nothing else: noise comes
from a counter-based hash, added to the scores as Gumbel noise, of which the largest is a sample.
So an answer does not depend on its neighbours in the batch, and one that is continued on another
worker goes on as it would have. The order is vLLM's: penalties, temperature, min_p, top_k, top_p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from workers.engines.torch.noise import Noise, mix
from workers.engines.torch.params import Params


class Sampled(Protocol):
    """What the sampler needs of a lane: its parameters, its prompt, and its answer so far."""

    params: Params
    prompt: list[int]
    answer: list[int]
    history: Any  # the sampler's own


@dataclass(slots=True)
class Candidates:
    """Log probabilities at one row: of the chosen token, and the likeliest with theirs."""

    chosen: float
    ids: list[int]
    logprobs: list[float]


@dataclass(slots=True)
class Picks:
    """A batch's tokens, -1 where there is none, with candidates by row where asked.

    Attributes:
        tokens: One per row.
        candidates: By row.
        errors: By row, why there is no token; nothing where the scores are not finite.
    """

    tokens: list[int]
    candidates: dict[int, Candidates]
    errors: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Plan:
    """What a batch asks for; rows as indices, and their parameters as [rows, 1] columns."""

    penalised: list[int]
    repetition: Tensor
    frequency: Tensor
    presence: Tensor
    sampled: list[int]
    sampled_index: Tensor
    temperature: Tensor
    filtered: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    unranked: Tensor  # whether neither top_k nor top_p is wanted
    width: int  # candidates to rank at first; 0 is none
    named: list[int]
    top: int


class Sampler:
    """Picks the next token of every row.

    Args:
        vocab_size: Columns of the logits.
        device: Of the logits.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._noise = Noise(vocab_size, device)
        self._plan: _Plan | None = None

    def bind(self, lanes: Sequence[Sampled]) -> None:
        """Prepare for a batch; again whenever its lanes or their order change."""
        params = [lane.params for lane in lanes]
        sampled = [row for row, each in enumerate(params) if not each.greedy]
        penalised = [row for row, each in enumerate(params) if each.penalised]
        filtered = [place for place, row in enumerate(sampled) if params[row].filtered]
        picky = [params[sampled[place]] for place in filtered]
        named = [row for row, each in enumerate(params) if each.logprobs is not None]
        self._plan = _Plan(
            penalised,
            self._column([params[row].repetition_penalty for row in penalised]),
            self._column([params[row].frequency_penalty for row in penalised]),
            self._column([params[row].presence_penalty for row in penalised]),
            sampled,
            self._index(sampled),
            self._column([params[row].temperature for row in sampled]),
            self._index(filtered),
            self._index([each.top_k or self._vocab_size for each in picky]).unsqueeze(1),
            self._column([each.top_p if each.top_p < 1.0 else 2.0 for each in picky]),
            self._column([each.min_p for each in picky]),
            self._column([each.top_p >= 1.0 and not each.top_k for each in picky]).bool(),
            max((each.ranked for each in picky), default=0),
            named,
            max((params[row].logprobs or 0 for row in named), default=0),
        )

    def pick(self, logits: Tensor, lanes: Sequence[Sampled]) -> Picks:
        """Choose a token for each row.

        Args:
            logits: float32, [rows, vocab_size]; left as they are.
            lanes: Those of the last `bind`.
        """
        plan = self._plan
        assert plan is not None, "bind comes first"
        scores = logits
        if plan.penalised:
            scores = self._penalise(scores.clone(), plan, lanes)
        if plan.sampled:
            noisy = self._add_noise(scores.index_select(0, plan.sampled_index), plan, lanes)
            if len(plan.sampled) == len(lanes):
                scores = noisy
            else:
                scores = scores.index_copy(0, plan.sampled_index, noisy)
        best, chosen = scores.max(dim=-1)
        tokens = chosen.masked_fill_(~best.isfinite(), -1).tolist()
        candidates = self._name(logits, tokens, plan, lanes) if plan.named else {}
        for row in plan.penalised:
            if tokens[row] >= 0:
                lanes[row].history[1, tokens[row]] += 1
        return Picks(tokens, candidates)

    def _penalise(self, scores: Tensor, plan: _Plan, lanes: Sequence[Sampled]) -> Tensor:
        history = torch.stack([self._history(lanes[row]) for row in plan.penalised])
        prompt, answer = history.unbind(1)
        rows = self._index(plan.penalised)
        some = scores.index_select(0, rows)
        repeated = torch.where(some > 0, some / plan.repetition, some * plan.repetition)
        some = torch.where(prompt + answer > 0, repeated, some)
        some -= plan.frequency * answer
        some -= plan.presence * (answer > 0)
        return scores.index_copy_(0, rows, some)

    def _history(self, lane: Sampled) -> Tensor:
        """Whether a token is in the prompt, and how often in the answer, [2, vocab_size]."""
        if lane.history is None:
            lane.history = torch.zeros((2, self._vocab_size), device=self._device)
            lane.history[0, self._index(list(lane.prompt))] = 1
            answer = self._index(lane.answer)
            lane.history[1].index_add_(0, answer, torch.ones(len(answer), device=self._device))
        history: Tensor = lane.history
        return history

    def _add_noise(self, scores: Tensor, plan: _Plan, lanes: Sequence[Sampled]) -> Tensor:
        scores /= plan.temperature
        if len(plan.filtered):
            some = _filter(scores.index_select(0, plan.filtered), plan)
            scores.index_copy_(0, plan.filtered, some)
        keys = [mix(lanes[row].params.seed, len(lanes[row].answer)) for row in plan.sampled]
        return scores.sub_(self._noise.log_exponentials(keys))

    def _name(
        self, logits: Tensor, tokens: list[int], plan: _Plan, lanes: Sequence[Sampled]
    ) -> dict[int, Candidates]:
        """Log probabilities by the model alone, before penalties and temperature."""
        rows = plan.named
        logprobs = logits.index_select(0, self._index(rows)).log_softmax(dim=-1)
        wanted = self._index([max(tokens[row], 0) for row in rows]).unsqueeze(1)
        chosen = logprobs.gather(1, wanted).squeeze(1).tolist()
        values, ids = logprobs.topk(plan.top, dim=-1)
        found = {}
        lists = zip(rows, chosen, ids.tolist(), values.tolist(), strict=True)
        for row, own, top, best in lists:
            count = lanes[row].params.logprobs
            found[row] = Candidates(own, top[:count], best[:count])
        return found

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).unsqueeze(1)

    def _index(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _filter(scores: Tensor, plan: _Plan) -> Tensor:
    """Rule out tokens: below min_p of the likeliest, outside the top_k, outside the top_p.

    What survives top_k is normalised before top_p. Tokens as likely as the last kept are kept.
    """
    best = scores.amax(dim=-1, keepdim=True)
    scores = scores.masked_fill(scores < best + plan.min_p.log(), -torch.inf)
    if not plan.width:
        return scores
    size = scores.shape[-1]
    least, complete = _least_kept(scores, plan, min(plan.width, size))
    if not complete:
        least, _ = _least_kept(scores, plan, size)
    return scores.masked_fill(scores < least, -torch.inf)


def _least_kept(scores: Tensor, plan: _Plan, width: int) -> tuple[Tensor, bool]:
    """The lowest score inside top_k and top_p of each row, looking at the best `width`.

    Sorting all would cost more than the model's own step. The flag says whether `width` was
    enough: whether no row may go on beyond it.
    """
    ranked = scores.topk(width, dim=-1).values
    ranks = torch.arange(width, device=scores.device)
    listed = ranked.masked_fill(ranks >= plan.top_k, -torch.inf)
    bounded = plan.top_k <= width
    total = torch.where(
        bounded, listed.logsumexp(-1, keepdim=True), scores.logsumexp(-1, keepdim=True)
    )
    mass = (listed - total).exp()
    inside = (ranks < plan.top_k) & (mass.cumsum(dim=-1) - mass < plan.top_p)
    last = inside.sum(dim=-1, keepdim=True).clamp_(min=1) - 1
    least = ranked.gather(1, last).masked_fill(plan.unranked, -torch.inf)
    complete = width == scores.shape[-1] or bool((bounded | plan.unranked | ~inside[:, -1:]).all())
    return least, complete
