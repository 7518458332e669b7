"""The batching policy: what it learns, decides and asks for, alone and on simulated devices."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.devices import Device, adaptive, fixed, p99, poisson, sustained
from workers.batching.latency import Latency
from workers.batching.microbatch import GROWTH, LEAD_MOST, START, Decision, MicroBatch


def learned(
    device: Device, *, most: int = 128, target: float = 0.1, sizes: tuple[int, ...] = (1, 4, 16, 64)
) -> tuple[MicroBatch, float]:
    """A policy that has seen batches of these sizes, and the time now."""
    policy, now = MicroBatch(most, target), 100.0
    for size in (1, *sizes, *sizes, *sizes):
        policy.began(now, size)
        now += device.base + device.slope * size
        policy.ended(now)
    return policy, now + 1


# ---- the line -----------------------------------------------------------------------------------


@given(
    base=st.floats(0, 1),
    slope=st.floats(1e-5, 0.1),
    sizes=st.lists(st.integers(1, 128), min_size=2, max_size=60),
)
def test_a_line_is_found(base: float, slope: float, sizes: list[int]) -> None:
    latency = Latency()
    for size in sizes:
        latency.learn(size, base + slope * size)
    if latency.sure:
        for size in (min(sizes), max(sizes)):
            assert latency(size) == pytest.approx(base + slope * size, rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 1e4)), max_size=80))
def test_nothing_makes_the_line_absurd(seen: list[tuple[int, float]]) -> None:
    latency = Latency()
    for size, seconds in seen:
        latency.learn(size, seconds)
        assert latency.base >= 0 and latency.slope >= 0
        assert latency(1) <= latency(100) < 1e9
        assert latency.largest(latency(50)) >= 49 or latency.slope == 0


def test_a_slow_batch_now_and_then_does_not_count() -> None:
    latency = Latency()
    for n in range(60):
        size = (1, 8, 32)[n % 3]
        latency.learn(size, (0.01 + 0.001 * size) * (20 if n % 10 == 9 else 1))
    assert latency(8) == pytest.approx(0.018, rel=0.05)


def test_a_device_that_has_become_slower_is_learned_soon_at_one_size_too() -> None:
    latency = Latency()
    for size in (1, 8, 32) * 5:
        latency.learn(size, 0.01 + 0.001 * size)
    for _ in range(6):
        latency.learn(8, 0.054)
    assert latency(8) == pytest.approx(0.054, rel=0.1)
    assert latency(32) == pytest.approx(0.126, rel=0.1), "the other sizes with it"


# ---- decisions ----------------------------------------------------------------------------------


def test_an_idle_device_starts_at_once() -> None:
    policy = MicroBatch()
    policy.arrived(0.0)
    assert policy.decide(0.0, 1, 0.0) == Decision(1)
    policy, now = learned(Device(0.01, 0.001))
    policy.arrived(now)
    assert policy.decide(now, 1, now) == Decision(1)


def test_a_busy_device_starts_nothing_and_then_takes_all() -> None:
    policy, now = learned(Device(0.01, 0.0001))
    policy.began(now, 1)
    assert policy.decide(now, 20, now) == Decision(0)
    policy.ended(now + 0.01)
    assert policy.decide(now + 0.01, 20, now) == Decision(20)


def test_a_batch_takes_half_of_the_target() -> None:
    policy, now = learned(Device(0.01, 0.001))
    assert policy.limit == 40
    assert policy.decide(now, 100, now) == Decision(40)
    assert learned(Device(0.01, 0.001), target=0.05)[0].limit == 15
    assert learned(Device(0.01, 0.001), most=16)[0].limit == 16


def test_out_of_the_targets_reach_a_batch_takes_twice_what_one_call_takes() -> None:
    policy, _ = learned(Device(0.2, 0.01))
    assert policy.limit == 22  # 0.42 s
    policy, _ = learned(Device(0.3, 0.0), most=64)
    assert policy.limit == 64, "size makes no difference"
    policy, _ = learned(Device(0.0, 0.3))
    assert policy.limit == 2, "a batch makes no difference"


def test_full_batches_in_a_row_grow_for_throughput() -> None:
    policy, now = learned(Device(0.01, 0.001))
    sizes = []
    for _ in range(12):
        sizes.append(policy.limit)
        policy.began(now, policy.limit)
        now += 0.01 + 0.001 * sizes[-1]
        policy.ended(now)
    assert sizes[:3] == [40] * 3 and sizes == sorted(sizes) and sizes[-1] == 128
    policy.began(now, 5)
    assert policy.limit == 40, "all that waited was taken"


def test_what_was_never_tried_is_approached() -> None:
    policy, _ = learned(Device(0.01, 0.0), sizes=(1, 2))
    assert policy.limit == START
    policy, _ = learned(Device(0.01, 0.0), sizes=(1, 10))
    assert policy.limit == GROWTH * 10
    assert MicroBatch(4).limit == 4


def test_a_burst_on_a_slow_function_may_come_together() -> None:
    policy, now = learned(Device(0.3, 0.0))
    policy.arrived(now)
    waits = policy.decide(now, 1, now)
    assert waits.size == 0 and waits.again == pytest.approx(now + 0.005)
    assert policy.decide(now + 0.0051, 8, now) == Decision(8)
    policy.began(now, 8)
    policy.ended(now + 0.3)
    assert policy.decide(now + 0.3, 3, now + 0.1) == Decision(3), "they have waited already"


def test_callers_in_a_loop_meet_in_one_batch() -> None:
    """Eight that call again as soon as they are answered, a millisecond or so later each."""
    device, dice = Device(0.02, 0.0001), random.Random(1)
    policy, now = learned(device)
    coming = sorted(now + dice.random() * 0.003 for _ in range(8))
    queue: list[float] = []
    sizes: list[int] = []
    end = again = float("inf")
    while len(sizes) < 60:
        now = min(coming[0] if coming else float("inf"), end, again)
        if coming and now == coming[0]:
            queue.append(coming.pop(0))
            policy.arrived(now)
        if now == end:
            policy.ended(now)
            coming = sorted(
                [*coming, *(now + 0.0005 + dice.random() * 0.002 for _ in range(sizes[-1]))]
            )
            end = float("inf")
        again = float("inf")
        if queue:
            decision = policy.decide(now, len(queue), queue[0])
            again = decision.again or float("inf")
            if decision.size:
                del queue[: decision.size]
                sizes.append(decision.size)
                policy.began(now, decision.size)
                end = now + device.seconds(decision.size, dice)
    assert sum(sizes[-30:]) / 30 > 6.5


def test_a_wait_for_callers_who_do_not_come_back_ends() -> None:
    policy, now = learned(Device(0.02, 0.0), sizes=(1, 4))
    for _ in range(8):
        policy.began(now, 4)
        now += 0.02
        policy.ended(now)
        policy.arrived(now + 0.001, 4)
    policy.began(now, 4)
    now += 0.02
    policy.ended(now)
    waits = policy.decide(now, 1, now - 0.01)
    assert waits.size == 0 and waits.again == pytest.approx(now + 0.005)
    assert policy.decide(now + 0.0051, 1, now - 0.01) == Decision(1)
    policy.arrived(now + 0.002, 4)
    assert policy.decide(now + 0.002, 5, now - 0.01) == Decision(5)


# ---- what is asked for --------------------------------------------------------------------------


def test_the_queue_is_asked_shortly_before_the_batch_ends() -> None:
    policy, now = learned(Device(0.05, 0.0))
    assert policy.room(now, 0) == policy.limit, "idle"
    policy.began(now, 4)
    assert policy.room(now + 0.01, 0) == 0
    assert policy.opens == pytest.approx(now + 0.05 - policy.lead, abs=1e-4)
    assert policy.room(now + 0.0499, 10) == policy.limit - 10
    assert policy.room(now + 0.09, 0) == policy.limit, "it takes longer than expected"
    assert policy.room(now + 0.09, 1000) == 0


def test_nothing_is_asked_for_while_nothing_is_known() -> None:
    policy = MicroBatch()
    assert policy.room(0.0, 0) == START
    policy.began(0.0, 1)
    assert policy.opens is None and policy.room(5.0, 0) == 0 and policy.spare(5.0, 0) == 0


def test_what_comes_unasked_is_taken_where_the_end_is_near() -> None:
    policy, now = learned(Device(0.05, 0.0))
    policy.began(now, 4)
    assert policy.spare(now, 0) == 0
    assert policy.spare(now + 0.04, 5) == policy.limit - 5
    assert policy.room(now + 0.04, 5) == 0


def test_the_lead_is_learned_from_the_round_trips() -> None:
    policy, now = learned(Device(0.05, 0.0))
    for n in range(20):
        policy.asked(now)
        policy.arrived(now + (0.006 if n % 2 else 0.5))
        now += 1
    assert policy.lead == pytest.approx(0.012)
    for _ in range(20):
        policy.asked(now)
        policy.arrived(now + 0.5)
    assert policy.lead == LEAD_MOST


# ---- on devices ---------------------------------------------------------------------------------

DEVICES = st.builds(Device, st.floats(0.0005, 0.03), st.floats(0.00002, 0.002))


@settings(max_examples=60, deadline=None)
@given(device=DEVICES, load=st.floats(0.01, 3), most=st.integers(1, 200), seed=st.integers(0, 99))
def test_every_call_runs_in_order_within_the_limits(
    device: Device, load: float, most: int, seed: int
) -> None:
    arrivals = poisson(load / (device.base + device.slope), 300, seed)
    outcome = adaptive(device, arrivals, most=most, seed=seed)
    assert len(outcome.seconds) == sum(outcome.sizes) == 300
    assert max(outcome.sizes) <= most
    assert min(outcome.seconds) >= device.base


@settings(max_examples=30, deadline=None)
@given(device=DEVICES, seed=st.integers(0, 99))
def test_a_lone_call_costs_no_more_than_the_device(device: Device, seed: int) -> None:
    single = device.base + device.slope
    arrivals = [n * 30 * single for n in range(1, 200)]
    outcome = adaptive(device, arrivals, most=128, seed=seed)
    assert p99(outcome.seconds) <= single * 1.02 * 1.25  # 1.25: five sigma of the noise.
    assert sorted(outcome.seconds)[99] <= single * 1.02 * 1.06


@pytest.mark.parametrize(
    ("device", "target"),
    [(Device(0.01, 0.0001), 0.1), (Device(0.004, 0.0005), 0.1), (Device(0.003, 0.0001), 0.05)],
)
def test_it_sustains_what_the_best_fixed_pair_does(device: Device, target: float) -> None:
    count, most = 3000, 1.1 / device.slope
    ours = sustained(
        lambda rate: adaptive(device, poisson(rate, count, 7), most=128, target=target).p99(),
        target, most,
    )  # fmt: skip
    best = max(
        sustained(
            lambda rate, size=size, window=window: fixed(  # type: ignore[misc]
                device, poisson(rate, count, 7), size=size, window=window
            ).p99(),
            target, most,
        )
        for size in (32, 128)
        for window in (0.0, 0.002, 0.01)
    )  # fmt: skip
    assert ours >= 0.95 * best
