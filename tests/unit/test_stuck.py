"""When a worker holds its own engine for stuck, and when it tries again."""

from __future__ import annotations

from workers.pace import STUCK_AFTER, TRY_AGAIN, Pace


def look(pace: Pace, steps: int, in_flight: int, start: float, seconds: float) -> float:
    now = start
    while now < start + seconds:
        now += 0.02
        pace.observe(steps, in_flight, now)
    return now


def test_work_without_a_step_is_stuck_until_a_step() -> None:
    pace = Pace()
    now = look(pace, 5, 1, 10.0, STUCK_AFTER + 0.1)
    assert pace.stuck
    look(pace, 6, 1, now, 0.02)
    assert not pace.stuck


def test_an_idle_engine_is_not_stuck() -> None:
    pace = Pace()
    look(pace, 5, 0, 10.0, 60.0)
    assert not pace.stuck


def test_a_stuck_engine_whose_work_is_gone_is_tried_again() -> None:
    pace = Pace()
    now = look(pace, 5, 1, 10.0, STUCK_AFTER + 0.1)
    now = look(pace, 5, 0, now, TRY_AGAIN - 0.1)
    assert pace.stuck, "it may hang still"
    look(pace, 5, 0, now, 0.2)
    assert not pace.stuck


def test_a_process_that_stood_still_does_not_blame_its_engine() -> None:
    pace = Pace()
    now = look(pace, 5, 1, 10.0, 0.1)
    pace.observe(5, 64, now + 3.0)
    assert not pace.stuck
    look(pace, 5, 64, now + 3.0, STUCK_AFTER + 0.1)
    assert pace.stuck, "it had its time"
