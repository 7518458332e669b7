"""Admission against simulated engines: steps of affine time, a KV cache that holds so many."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.batching.admission import SLOWEST, Admission
from workers.engines.base import Observation

MOST = 1024


@dataclass(slots=True)
class SimulatedEngine:
    """An engine under endless demand.

    Attributes:
        base: Seconds of a step, whatever its size.
        slope: Seconds more for each request in it.
        room: Requests that the KV cache holds; the others wait.
        noise: Steps take up to this share more or less.
        ending: Of the requests above the limit, the share that ends in a step.
    """

    base: float
    slope: float
    room: int
    noise: float = 0.0
    ending: float = 0.25
    in_flight: int = 0
    steps: int = 0

    def run(self, admission: Admission, steps: int, chance: random.Random) -> list[int]:
        """Step on; the limit after each."""
        limits = []
        for _ in range(steps):
            excess = self.in_flight - admission.limit
            if excess > 0:
                self.in_flight -= max(1, int(excess * self.ending))
            else:
                self.in_flight = admission.limit
            running = min(self.in_flight, self.room)
            seconds = self.seconds(running) * (1 + chance.uniform(-self.noise, self.noise))
            self.steps += 1
            seen = Observation(
                self.steps, running, self.in_flight - running, running / self.room, seconds
            )
            admission.step(seen, self.in_flight, seconds)
            limits.append(admission.limit)
        return limits

    def seconds(self, running: int) -> float:
        return self.base + self.slope * running

    def throughput(self, limit: int) -> float:
        running = min(limit, self.room)
        return running / self.seconds(running)

    def best(self, target: float) -> int:
        """The best fixed limit, by search: the most tokens with every step within the target."""
        target = max(target, SLOWEST * self.seconds(1))
        allowed = [
            limit
            for limit in range(1, MOST + 1)
            if limit <= self.room and self.seconds(limit) <= target
        ]
        return max(allowed, key=self.throughput, default=1)


def check(
    engine: SimulatedEngine, admission: Admission, target: float, chance: random.Random
) -> None:
    engine.run(admission, 20, chance)
    best = engine.best(target)
    limits = engine.run(admission, 60, chance)
    slack = max(1.0, 0.05 * best)
    assert all(abs(limit - best) <= slack for limit in limits), (best, limits)
    assert max(limits) - min(limits) <= max(1.0, 0.10 * best), (best, limits)
    mean = sum(engine.throughput(limit) for limit in limits) / len(limits)
    if best > 20:  # Below, one request more or less is more than 5%.
        assert mean >= 0.95 * engine.throughput(best)


def engine_of(chance: random.Random) -> SimulatedEngine:
    return SimulatedEngine(
        base=chance.uniform(0.001, 0.03),
        slope=chance.uniform(0.00005, 0.002),
        room=chance.randint(4, 900),
        noise=chance.choice([0.0, 0.005, 0.01]),
        ending=chance.uniform(0.3, 1.0),
    )


# Drawn evenly, not towards the corners: where a step is nearly all base, 1% of noise in its time
# is more than 5% in the limit, whatever the policy.
chances = st.integers(0, 10**9).map(random.Random)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(chance=chances)
def test_it_finds_the_best_limit_within_20_steps(chance: random.Random) -> None:
    target = chance.uniform(0.04, 0.2)
    check(engine_of(chance), Admission(MOST, target), target, chance)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(chance=chances)
def test_it_finds_it_again_within_20_steps_of_a_change(chance: random.Random) -> None:
    check_change(chance)


def test_a_step_that_was_all_base_may_be_none_of_it_now() -> None:
    """Scaled to the slower steps, the line said that no size is within the target."""
    check_change(random.Random(7582))


def check_change(chance: random.Random) -> None:
    target = chance.uniform(0.04, 0.2)
    admission = Admission(MOST, target)
    before = engine_of(chance)
    before.run(admission, 60, chance)
    changed = replace(engine_of(chance), in_flight=before.in_flight, steps=before.steps)
    check(changed, admission, target, chance)


def test_without_a_target_only_the_engine_says_no() -> None:
    admission = Admission(64, None)
    assert (admission.limit, admission.reason) == (64, "most")
    SimulatedEngine(0.5, 0.1, 1000).run(admission, 30, random.Random(0))
    assert admission.limit == 64
    SimulatedEngine(0.5, 0.1, 20).run(admission, 30, random.Random(0))
    assert (admission.limit, admission.reason) == (19, "kv")


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 49])
def test_slots_may_all_be_taken(most: int) -> None:
    """An engine without pages says how many of its slots are taken: full is not too full."""
    admission = Admission(most, None)
    for steps in range(1, 4 * most):
        running = 1 + steps % most
        seen = Observation(steps=steps, running=running, waiting=0, kv_used=running / most)
        admission.step(seen, running, 0.01)
        assert (admission.limit, admission.reason) == (most, "most")


def test_a_target_out_of_reach_does_not_stop_the_batch() -> None:
    admission = Admission(64, 0.01)
    engine = SimulatedEngine(0.4, 0.004, 1000)
    engine.run(admission, 40, random.Random(0))
    assert engine.seconds(admission.limit) <= SLOWEST * engine.seconds(1)
    assert admission.limit >= 40


def test_what_waits_in_the_engine_is_not_added_to() -> None:
    admission = Admission(64, None)
    for steps in range(1, 6):
        admission.step(Observation(steps, running=10, waiting=5), 15, 0.01)
    assert (admission.limit, admission.reason) == (10, "waiting")
    for steps in range(6, 40):
        admission.step(Observation(steps, running=10), 10, 0.01)
    assert (admission.limit, admission.reason) == (64, "most")


@pytest.mark.parametrize("looks", [[1, 0, 1, 0], [1, 1, 0, 1, 1]])
def test_one_that_has_just_come_does_not_count_as_waiting(looks: list[int]) -> None:
    admission = Admission(64, None)
    for steps, waiting in enumerate(looks, 1):
        admission.step(Observation(steps, 10, waiting), 10 + waiting, 0.01)
    assert admission.limit == 64


def test_the_clock_gives_the_mean_of_steps_between_two_looks() -> None:
    admission = Admission(64, 0.05, start=4)
    now = 100.0
    steps = 0
    for _ in range(40):
        now += 0.02
        steps += 4
        admission.observe(now, Observation(steps, admission.limit), admission.limit)
    assert admission.limit == 64  # 5 ms a step
    for _ in range(40):
        now += 0.02
        steps += admission.limit % 2  # Some looks see no step at all.
        admission.observe(now, Observation(steps, admission.limit), admission.limit)
    before = admission.limit
    admission.observe(now + 60, Observation(steps, 0), 0)
    admission.observe(now + 61, Observation(steps + 1, 1), 1)
    assert admission.limit == before  # An idle minute is no slow step.
