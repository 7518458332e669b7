"""The torch engine's scheduler: chunks, forks, and slots without gaps."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.torch.scheduler import Copy, Lane, Scheduler


def step(scheduler: Scheduler[Lane]) -> list[Copy]:
    return scheduler.advance(scheduler.plan())


def test_short_prompts_are_computed_together() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=8, chunk=32)
    for size in (5, 10, 9, 4):
        scheduler.add(Lane(1, size))
    plan = scheduler.plan()
    assert plan is not None
    assert (plan.first, plan.counts) == (0, [5, 10, 9])  # a fourth would make 40 with padding
    scheduler.advance(plan)
    assert (scheduler.decoding, scheduler.waiting) == (3, 1)


def test_a_long_prompt_comes_in_chunks_while_others_decode() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=8, chunk=16)
    scheduler.add(Lane(1, 4))
    step(scheduler)
    scheduler.add(Lane(2, 40))
    scheduler.add(Lane(3, 4))
    cached = []
    for _ in range(4):
        step(scheduler)
        cached.append([lane.cached for lane in scheduler.lanes])
    # The last chunk of 8 leaves room for a short prompt beside it.
    assert cached == [[5, 16], [6, 32], [7, 40, 4], [8, 41, 5]]


def test_urgent_lanes_go_first_and_equal_ones_in_order() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=1, chunk=16)
    for job, urgency in ((1, 2), (2, 1), (3, 0), (4, 1)):
        scheduler.add(Lane(job, 3, urgency))
    order = []
    while not scheduler.idle:
        step(scheduler)
        order.append(scheduler.lanes[0].job)
        scheduler.leave({0})
    assert order == [3, 2, 4, 1]


def test_forks_begin_from_the_roots_cache() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=5, chunk=16)
    scheduler.add(Lane(1, 20, forks=[Lane(1, 20), Lane(1, 20)]))
    scheduler.add(Lane(2, 2))
    assert step(scheduler) == []
    assert step(scheduler) == [Copy(0, 2, 20), Copy(0, 3, 20)]
    assert [(lane.job, lane.cached) for lane in scheduler.lanes] == [
        (1, 20),
        (2, 2),
        (1, 20),
        (1, 20),
    ]
    assert scheduler.decoding == 4


def test_a_lane_with_forks_waits_for_all_their_slots_and_is_not_overtaken() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=2, chunk=16)
    scheduler.add(Lane(1, 2))
    scheduler.add(Lane(2, 2, forks=[Lane(2, 2)]))
    scheduler.add(Lane(3, 2))
    step(scheduler)
    assert [lane.job for lane in scheduler.lanes] == [1]
    scheduler.leave({0})
    step(scheduler)
    assert [lane.job for lane in scheduler.lanes] == [2, 2]


def test_leaving_moves_the_last_ones_into_the_gaps() -> None:
    scheduler: Scheduler[Lane] = Scheduler(slots=8, chunk=16)
    for job in range(5):
        scheduler.add(Lane(job, 3))
    step(scheduler)
    scheduler.add(Lane(9, 40))
    step(scheduler)
    assert scheduler.leave({0, 3}) == [Copy(4, 0, 4), Copy(5, 3, 16)]
    assert [lane.job for lane in scheduler.lanes] == [4, 1, 2, 9]
    assert scheduler.decoding == 3


@given(
    slots=st.integers(1, 6),
    chunk=st.integers(1, 12),
    jobs=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3), st.integers(0, 2)), max_size=15),
    seed=st.integers(0, 1 << 20),
)
def test_rows_hold_what_their_lane_computed(
    slots: int, chunk: int, jobs: list[tuple[int, int, int]], seed: int
) -> None:
    """Runs a model of the cache beside the scheduler, with arrivals, ends and aborts at random."""
    source = random.Random(seed)
    scheduler: Scheduler[Lane] = Scheduler(slots, chunk)
    rows: list[list[int]] = [[] for _ in range(slots)]  # the job that computed each position
    arrivals = deque(enumerate(jobs))
    began: list[int] = []

    def copy(copies: list[Copy]) -> None:
        for source_row, target, length in copies:
            rows[target] = rows[source_row][:length]

    for _ in range(400):
        if arrivals and source.random() < 0.5:
            job, (size, forks, urgency) = arrivals.popleft()
            extra = [Lane(job, size, urgency) for _ in range(min(forks, slots - 1))]
            scheduler.add(Lane(job, size, urgency, forks=extra))
        plan = scheduler.plan()
        for slot in range(scheduler.decoding):
            rows[slot].append(scheduler.lanes[slot].job)
        if plan is not None:
            assert plan.first == scheduler.decoding
            assert max(plan.counts) * len(plan.counts) <= max(chunk, max(plan.counts))
            assert max(plan.counts) <= chunk
            for slot, count in enumerate(plan.counts, plan.first):
                lane = scheduler.lanes[slot]
                began += [lane.job] if not lane.cached else []
                rows[slot] = rows[slot][: lane.cached] + [lane.job] * count
        copy(scheduler.advance(plan))
        check(scheduler, rows)
        leaving = {slot for slot in range(scheduler.decoding) if source.random() < 0.2}
        copy(scheduler.leave(leaving))
        check(scheduler, rows)
        if source.random() < 0.1:
            aborted = {source.randrange(len(jobs) or 1)}
            copy(scheduler.discard(aborted))
            assert not any(lane.job in aborted for lane in scheduler.lanes)
            check(scheduler, rows)
        if scheduler.idle and not arrivals:
            return
    raise AssertionError("lanes are left")


def check(scheduler: Scheduler[Lane], rows: list[list[int]]) -> None:
    assert len(scheduler.lanes) <= scheduler.slots
    assert len(scheduler.lanes) - scheduler.decoding <= 1
    for slot, lane in enumerate(scheduler.lanes):
        assert rows[slot][: lane.cached] == [lane.job] * lane.cached
        assert (lane.missing <= 0) == (slot < scheduler.decoding)
