from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from workers.pulls import Pulls


def drained(pulls: Pulls, free: int, now: float = 0.0) -> list[int]:
    """Answer every poll with nothing; the order in which the queues were asked."""
    asked = []
    while polls := [pull for pull in pulls.plan(free, now) if pull.expires is None]:
        for pull in polls:
            asked.append(pull.urgency)
            pulls.ended(pull.number, now)
    return asked


def test_all_queues_are_asked_by_urgency_before_anything_stands() -> None:
    pulls = Pulls()
    assert drained(pulls, 16) == [0, 1, 2, 3]
    assert pulls.asked <= 16
    assert pulls.asked > 0


def test_what_stands_asks_for_no_more_than_is_free() -> None:
    pulls = Pulls()
    drained(pulls, 100)
    assert pulls.asked == 100
    assert pulls.plan(100, 0.1) == []


def test_with_one_slot_every_queue_has_a_pull() -> None:
    pulls = Pulls()
    drained(pulls, 1)
    assert pulls.asked == 4


def test_something_found_begins_again_at_the_most_urgent() -> None:
    pulls = Pulls()
    (first,) = pulls.plan(4, 0.0)
    pulls.ended(first.number, 0.0)
    (second,) = pulls.plan(4, 0.0)
    assert (first.urgency, second.urgency) == (0, 1)
    for _ in range(second.batch):
        pulls.arrived(1)
    assert [pull.urgency for pull in pulls.plan(1, 0.0)] == [0]


def test_under_load_a_queue_that_does_not_fill_the_slots_ends_the_polling() -> None:
    pulls = Pulls()
    for urgency in range(4):
        (poll,) = pulls.plan(16, 0.0)
        assert (poll.urgency, poll.expires) == (urgency, None)
        if urgency == 2:
            pulls.arrived(2)  # One of sixteen: nothing more was there.
        pulls.ended(poll.number, 0.0)
    standing = pulls.plan(15, 0.0)
    assert [pull.urgency for pull in standing] == [0, 1, 2, 3]
    assert all(pull.expires for pull in standing)


def test_a_queue_at_which_a_pull_stands_is_not_polled() -> None:
    pulls = Pulls()
    drained(pulls, 16)
    asked = pulls.asked
    pulls.saturated()  # For a moment, with the pulls still standing.
    assert pulls.plan(16, 0.1) == []
    assert pulls.asked == asked


def test_pulls_of_one_queue_are_served_in_turn() -> None:
    pulls = Pulls()
    drained(pulls, 8)
    first = {pull.number: pull for pull in pulls._open.values() if pull.urgency == 2}
    ((number, old),) = first.items()
    old.left = 1
    (more,) = [pull for pull in pulls.plan(64, 0.1) if pull.urgency == 2]
    pulls.arrived(2)
    assert number not in pulls._open
    pulls.arrived(2)
    assert more.left == more.batch - 1


def test_a_failure_waits_a_moment() -> None:
    pulls = Pulls()
    (first,) = pulls.plan(4, 0.0)
    pulls.ended(first.number, 0.0, failed=True)
    assert pulls.plan(4, 0.1) == []
    assert pulls.plan(4, 0.3)


def test_a_pull_that_is_never_answered_ends_by_itself() -> None:
    pulls = Pulls()
    pulls.plan(4, 0.0)
    assert pulls.plan(4, 0.1) == []
    assert pulls.plan(4, 1.0)


def test_the_least_urgent_queue_never_starves() -> None:
    pulls = Pulls(floor=0.25)
    first = []
    for _ in range(40):
        pulls.saturated()
        (pull,) = pulls.plan(1, 0.0)
        first.append(pull.urgency)
        pulls.arrived(pull.urgency)
    assert first.count(3) == 10
    assert first.count(0) == 30


@given(st.integers(1, 64), st.integers(0, 2**32))
def test_what_is_asked_stays_in_bounds(slots: int, seed: int) -> None:
    """Never more than the free slots and one message a queue; always something, while free."""
    chance = random.Random(seed)
    pulls, running, now = Pulls(), 0, 0.0
    open_: dict[int, int] = {}
    for _ in range(60):
        now += chance.uniform(0.0, 0.2)
        free = slots - running
        for pull in pulls.plan(free, now):
            open_[pull.number] = pull.urgency
        assert all(pull.until > now for pull in pulls._open.values())
        assert pulls.asked <= max(slots, 0) + 4
        if free > 0:
            assert pulls.asked > 0
        action = chance.random()
        if action < 0.4 and open_ and free > 0:
            number = chance.choice(list(open_))
            pulls.arrived(open_[number])
            running += 1
        elif action < 0.7 and open_:
            number = chance.choice(list(open_))
            pulls.ended(number, now)
            del open_[number]
        elif action < 0.75:
            pulls.reset()
            open_.clear()
        elif running:
            running -= 1
        if running >= slots:
            pulls.saturated()
