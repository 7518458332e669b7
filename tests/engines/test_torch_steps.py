"""The torch engine step by step: chunks, aborts, and failures that stay one job's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch

from shared.errors import EngineError
from shared.wire import Sampling
from tests.engines.driver import Driver, Subject
from tests.engines.torch_engines import make_engine, make_runner
from workers.engines.base import Job
from workers.engines.torch.prompts import Preparer
from workers.engines.torch.runner import Runner


def job(number: int, tokens: int = 5, **sampling: Any) -> Job:
    values = {"max_tokens": 20, "temperature": 0.0, "ignore_eos": True} | sampling
    return Job(number, None, None, tuple(range(1, tokens + 1)), Sampling(**values))


@pytest.fixture
def stepping(folder: Path) -> Iterator[tuple[Runner, Preparer]]:
    with torch.inference_mode():
        yield make_runner(folder)


def add(stepping: tuple[Runner, Preparer], *jobs: Job) -> None:
    runner, preparer = stepping
    for each in jobs:
        for lane in preparer.prepare(each).lanes:
            runner.add(lane)


def finish(runner: Runner) -> dict[int, list[int]]:
    """Step until nothing is left; tokens by job."""
    ids: dict[int, list[int]] = {}
    while not runner.idle:
        for output in runner.step():
            ids.setdefault(output.job, []).extend(output.token_ids)
    return ids


def test_an_abort_in_prefill_frees_at_once(stepping: tuple[Runner, Preparer]) -> None:
    runner, _ = stepping
    add(stepping, job(1, tokens=5))
    runner.step()
    add(stepping, job(2, tokens=200), job(3, tokens=200))
    for _ in range(3):
        assert {output.job for output in runner.step()} == {1}
    assert runner.jobs == 2
    assert [lane.cached for lane in runner.scheduler.lanes] == [8, 48]
    runner.abort({2})
    assert runner.jobs == 1
    runner.abort({3})
    assert runner.scheduler.waiting == 0
    assert list(finish(runner)) == [1]


def test_a_long_prompt_does_not_stop_the_others(stepping: tuple[Runner, Preparer]) -> None:
    runner, _ = stepping
    add(stepping, job(1))
    runner.step()
    add(stepping, job(2, tokens=100))
    for _ in range(6):
        assert [output.job for output in runner.step()] == [1]
    assert [output.job for output in runner.step()] == [1, 2]


def test_scores_that_are_not_finite_fail_one_job(
    stepping: tuple[Runner, Preparer],
) -> None:
    runner, _ = stepping
    add(stepping, *(job(number, tokens=number + 3) for number in range(4)))
    alone = finish(runner)
    add(stepping, *(job(number, tokens=number + 3) for number in range(4)))
    outputs = runner.step()
    broken = runner.scheduler.lanes[1].job
    runner._cache._rows[:, 1] = torch.nan
    outputs += runner.step()
    errors = [output for output in outputs if output.error is not None]
    assert [output.job for output in errors] == [broken]
    assert isinstance(errors[0].error, EngineError)
    add(stepping, job(9, tokens=4))  # into the slot that held the broken numbers
    after = finish(runner)
    assert len(after.pop(9)) == 20
    for number, ids in after.items():
        before = [token for each in outputs if each.job == number for token in each.token_ids]
        assert before + ids == alone[number]
    assert after.keys() == {0, 1, 2, 3} - {broken}


def test_a_prompt_that_is_not_finite_fails_before_it_moves(
    stepping: tuple[Runner, Preparer],
) -> None:
    runner, _ = stepping
    add(stepping, job(1, tokens=100))
    runner.step()
    runner._cache._rows[:, 0] = torch.nan
    assert [type(output.error) for output in runner.step()] == [EngineError]
    assert runner.idle


def test_a_sampler_error_is_one_jobs_own(
    stepping: tuple[Runner, Preparer], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = stepping
    jobs = [job(number, temperature=1.0, seed=number, logprobs=2) for number in range(4)]
    add(stepping, *jobs)
    alone = finish(runner)
    pick = runner._sampler.pick

    def fragile(logits: torch.Tensor, lanes: list[Any]) -> Any:
        if any(lane.job == 2 and len(lane.answer) == 5 for lane in lanes):
            raise ValueError("made to fail")
        return pick(logits, lanes)

    monkeypatch.setattr(runner._sampler, "pick", fragile)
    add(stepping, *jobs)
    ids: dict[int, list[int]] = {}
    errors = []
    while not runner.idle:
        for output in runner.step():
            ids.setdefault(output.job, []).extend(output.token_ids)
            errors += [(output.job, str(output.error))] if output.error else []
    assert errors == [(2, "ValueError('made to fail')")]
    assert ids == alone | {2: alone[2][:5]}


async def test_a_step_that_fails_is_the_engines_death(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(Subject(make_engine(folder), lambda _ids: ""))
    death = asyncio.get_running_loop().create_future()
    await driver.engine.start(driver.take, death.set_result)
    monkeypatch.setattr(Runner, "step", lambda _self: 1 // 0)
    driver.submit()
    assert isinstance(await asyncio.wait_for(death, 10), EngineError)
    await driver.engine.close()
