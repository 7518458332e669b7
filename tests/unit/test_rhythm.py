"""Ticks travel with steps where those are close, and never come late."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rhythm import FLOW, TIMER, Rhythm

BEAT = 0.1
TICK = 0.05


@pytest.mark.parametrize(("between", "due_in", "ticks"), [
    (0.02, 0.05, False),
    (0.02, 0.03, False),
    (0.02, 0.02, True),
    (0.02, 0.0, True),
    (0.0003, 0.02, False),
    (0.0003, 0.0003, True),
    (0.05, 0.05, True),
    (FLOW + 0.01, 0.01, False),
    (3.0, 0.0, False),
])  # fmt: skip
def test_a_step_ticks_where_the_next_may_be_too_late(
    between: float, due_in: float, ticks: bool
) -> None:
    rhythm = Rhythm()
    rhythm.ticked(7.0, 100.0)
    assert not rhythm.step(10.0)
    rhythm.ticked(10.0, between + due_in)
    assert rhythm.step(10.0 + between) == ticks


def test_what_is_due_before_the_next_step_is_due_at_this_one_and_only_then() -> None:
    rhythm = Rhythm()
    rhythm.ticked(10.0, 0.03)
    rhythm.step(10.0)
    assert rhythm.ahead == TIMER
    assert rhythm.step(10.02)
    assert rhythm.ahead == pytest.approx(0.025)
    rhythm.ticked(10.02, TICK)
    assert rhythm.ahead == TIMER


class Played:
    """Ticks as `workers.host` has them, over a clock that is set by hand."""

    def __init__(self) -> None:
        self.rhythm = Rhythm()
        self.beats: list[float] = []
        self.alone = 0
        self._beat_due = 0.0
        self._due = 0.0

    def run(self, steps: list[float], end: float) -> None:
        """Let these steps be made, and time pass to the end."""
        for step in [*steps, end]:
            while self._due < step:
                self.alone += 1
                self._tick(self._due)
            if self.rhythm.step(step):
                self._tick(step)

    def _tick(self, now: float) -> None:
        if now + self.rhythm.ahead >= self._beat_due:
            self.beats.append(now)
            self._beat_due = now + BEAT
        pause = min(TICK, self._beat_due - now)
        self.rhythm.ticked(now, pause)
        self._due = now + pause


def test_in_a_flow_of_steps_no_tick_wakes_the_process() -> None:
    jitter = random.Random(1)
    played = Played()
    played.run([0.02 * n + jitter.uniform(0, 0.002) for n in range(500)], 10.0)
    assert played.alone <= 3, "but the first, before the flow is known"
    assert len(played.beats) <= 10.0 / 0.08 + 2


def test_an_idle_worker_beats_as_often_as_it_should() -> None:
    played = Played()
    played.run([], 10.0)
    assert 99 <= len(played.beats) <= 101


@given(st.lists(st.floats(0.0, 0.2), max_size=60))
def test_however_steps_come_no_beat_is_late(pauses: list[float]) -> None:
    steps, now = [], 0.0
    for pause in pauses:
        now += pause
        steps.append(now)
    played = Played()
    played.run(steps, now + 1.0)
    times = [*played.beats, now + 1.0]
    assert times[0] == 0.0
    for one, other in pairwise(times):
        assert other - one <= BEAT + 1e-9
