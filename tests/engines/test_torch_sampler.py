"""The torch engine's sampler: what it rules out, what it weighs, and its randomness."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch
import transformers

from workers.engines.torch.noise import mix
from workers.engines.torch.params import Params
from workers.engines.torch.sampler import Sampler

VOCABULARY = 50
PLAIN = Params(1.0, 1.0, 0, 0.0, 1, 0.0, 0.0, 1.0, None)
GREEDY = replace(PLAIN, temperature=0.0)


@dataclass
class Row:
    params: Params
    prompt: list[int] = field(default_factory=lambda: [1])
    answer: list[int] = field(default_factory=list)
    history: Any = None


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(VOCABULARY, torch.device("cpu"))


def scores(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((rows, VOCABULARY), generator=torch.Generator().manual_seed(seed)) * 2


def draw(sampler: Sampler, logits: torch.Tensor, params: Params, count: int) -> list[int]:
    """Sample one row at many positions."""
    rows = [Row(params, answer=[0] * place) for place in range(count)]
    sampler.bind(rows)
    return sampler.pick(logits.expand(count, -1), rows).tokens


def test_samples_follow_the_probabilities(sampler: Sampler) -> None:
    logits = scores(1)
    count = 20_000
    drawn = torch.tensor(draw(sampler, logits, replace(PLAIN, temperature=0.8), count))
    wanted = (logits[0] / 0.8).softmax(-1) * count
    seen = torch.bincount(drawn, minlength=VOCABULARY)
    squares = ((seen - wanted) ** 2 / wanted).sum()
    assert squares < 94  # 99.99 % of chi-square with 49 degrees of freedom


def test_neighbouring_seeds_and_positions_are_independent(sampler: Sampler) -> None:
    logits = torch.zeros((1, VOCABULARY))
    count = 2000
    drawn = [draw(sampler, logits, replace(PLAIN, seed=seed), count) for seed in range(6)]
    for first in range(6):
        for second in range(first):
            same = sum(a == b for a, b in zip(drawn[first], drawn[second], strict=True))
            assert abs(same - count / VOCABULARY) < 6 * (count / VOCABULARY) ** 0.5
        repeats = sum(a == b for a, b in zip(drawn[first], drawn[first][1:], strict=False))
        assert abs(repeats - count / VOCABULARY) < 6 * (count / VOCABULARY) ** 0.5


@pytest.mark.parametrize(
    ("params", "warpers"),
    [
        (replace(PLAIN, top_k=7), [transformers.TopKLogitsWarper(7)]),
        (replace(PLAIN, top_p=0.8), [transformers.TopPLogitsWarper(0.8)]),
        (replace(PLAIN, top_p=0.01), [transformers.TopPLogitsWarper(0.01)]),
        (replace(PLAIN, min_p=0.1), [transformers.MinPLogitsWarper(0.1)]),
        (replace(PLAIN, top_p=0.999), [transformers.TopPLogitsWarper(0.999)]),
        (replace(PLAIN, top_k=VOCABULARY + 9), []),
        (
            replace(PLAIN, top_k=12, top_p=0.7, temperature=1.5),
            [
                transformers.TemperatureLogitsWarper(1.5),
                transformers.TopKLogitsWarper(12),
                transformers.TopPLogitsWarper(0.7),
            ],
        ),
    ],
)
def test_filters_keep_what_those_of_transformers_keep(
    sampler: Sampler, params: Params, warpers: list[Any]
) -> None:
    logits = scores(1, seed=5)
    kept = logits.clone()
    for warper in warpers:
        kept = warper(torch.tensor([[0]]), kept)
    wanted = set(kept[0].isfinite().nonzero().flatten().tolist())
    assert set(draw(sampler, logits, params, 4000)) <= wanted
    probability = kept.softmax(-1)[0]
    likely = {token for token in wanted if probability[token] > 0.005}
    assert likely <= set(draw(sampler, logits, params, 4000))


def test_a_flat_distribution_needs_more_than_the_first_candidates() -> None:
    size = 1000
    sampler = Sampler(size, torch.device("cpu"))
    logits = torch.linspace(0.0, 0.5, size).unsqueeze(0)
    kept = transformers.TopPLogitsWarper(0.9)(torch.tensor([[0]]), logits.clone())[0].isfinite()
    assert kept.sum() > 800
    others = [replace(PLAIN, min_p=0.5), replace(PLAIN, top_k=3)]
    rows = [Row(replace(PLAIN, top_p=0.9), answer=[0] * place) for place in range(4000)]
    rows += [Row(each) for each in others]
    sampler.bind(rows)
    tokens = sampler.pick(logits.expand(len(rows), -1), rows).tokens
    assert all(kept[tokens[:4000]])
    assert len(set(tokens[:4000])) > 780
    assert tokens[-1] >= size - 3


def test_a_row_does_not_depend_on_its_neighbours(sampler: Sampler) -> None:
    params = [
        GREEDY,
        PLAIN,
        replace(PLAIN, top_k=5, temperature=0.5),
        replace(GREEDY, presence_penalty=1.0),
        replace(PLAIN, top_p=0.5, repetition_penalty=1.2, seed=8),
        replace(PLAIN, min_p=0.2, logprobs=3),
    ]
    logits = scores(len(params), seed=9)
    untouched = logits.clone()

    def rows() -> list[Row]:
        return [Row(each, prompt=[3, 4], answer=[7, 7, 9]) for each in params]

    together = rows()
    sampler.bind(together)
    picks = sampler.pick(logits, together)
    assert torch.equal(logits, untouched)
    for place, row in enumerate(rows()):
        sampler.bind([row])
        assert sampler.pick(logits[place : place + 1], [row]).tokens == [picks.tokens[place]]


def test_penalties(sampler: Sampler) -> None:
    logits = scores(1, seed=2)
    params = replace(
        GREEDY, presence_penalty=0.3, frequency_penalty=0.7, repetition_penalty=1.4, logprobs=0
    )
    row = Row(params, prompt=[0, 1, 1, 2], answer=[2, 3, 3])
    expected = logits[0].clone()
    for token in (0, 1, 2, 3):
        expected[token] = expected[token] / 1.4 if expected[token] > 0 else expected[token] * 1.4
    for token, count in ((2, 1), (3, 2)):
        expected[token] -= 0.3 + 0.7 * count
    for _ in range(12):
        sampler.bind([row])
        (token,) = sampler.pick(logits, [row]).tokens
        assert token == int(expected.argmax())
        if token not in row.prompt + row.answer:
            own = expected[token]
            expected[token] = own / 1.4 if own > 0 else own * 1.4
        expected[token] -= 0.7 + (0.0 if token in row.answer else 0.3)
        row.answer.append(token)


def test_logprobs_are_the_models_own(sampler: Sampler) -> None:
    logits = scores(4, seed=4)
    rows = [Row(replace(PLAIN, temperature=0.3, logprobs=count)) for count in (3, None, 0, 5)]
    sampler.bind(rows)
    picks = sampler.pick(logits, rows)
    assert picks.candidates.keys() == {0, 2, 3}
    for row, own in picks.candidates.items():
        count = rows[row].params.logprobs or 0
        wanted = logits[row].log_softmax(-1)
        assert own.chosen == pytest.approx(float(wanted[picks.tokens[row]]))
        assert own.ids == wanted.topk(count).indices.tolist()
        assert own.logprobs == pytest.approx(wanted.topk(count).values.tolist())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_give_no_token(sampler: Sampler, bad: float) -> None:
    rows = [Row(GREEDY), Row(PLAIN), Row(replace(PLAIN, top_p=0.5)), Row(GREEDY)]
    logits = scores(4)
    logits[:3] = bad
    sampler.bind(rows)
    tokens = sampler.pick(logits, rows).tokens
    assert tokens[:3] == [-1, -1, -1]
    assert tokens[3] == int(logits[3].argmax())


def test_the_generator_is_fixed() -> None:
    # Another worker, perhaps of another version, must go on with the same numbers.
    assert mix(0, 0) == 0xA706DD2F4D197E6F
    assert mix(7, 3) == 0x6BAA78681A99F995
    assert mix(-1, 5) != mix(1, 5)
    sampler = Sampler(VOCABULARY, torch.device("cpu"))
    assert draw(sampler, torch.zeros((1, VOCABULARY)), PLAIN, 6) == [27, 35, 0, 37, 20, 37]
