"""Who goes first: classes, the floor under batch work, and deadlines, over the whole stack."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from millstream import Client, Generation
from millstream.questions import Priority
from shared.errors import DeadlineExceeded, Overloaded
from tests.e2e.running import RunningStack
from tests.faults.harness import Cluster

pytestmark = pytest.mark.alone

STEP = 0.005
TOKENS = 8
BATCH = 40
LATE = 0.01
"""Who asks when a slot has just been given away is not overtaken by that."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One worker that runs one request at a time."""
    flags = ["--engine-arg", f"step_ms={STEP * 1000:g}", "--engine-arg", "max_batch=1"]
    with RunningStack(tmp_path_factory.mktemp("priorities") / "data", *flags) as running:
        yield running


@dataclass(slots=True)
class Seen:
    """When a request was asked, taken and ended, and the time between its pieces."""

    priority: Priority
    asked: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    ended: float = 0.0
    gaps: list[float] = field(default_factory=list)


async def ask(client: Client, seen: list[Seen], priority: Priority) -> Seen:
    """Ask, and note when the first token and the end came."""
    one = Seen(priority)
    last = 0.0
    async for _ in client.generate("x", max_tokens=TOKENS, priority=priority):
        now = time.perf_counter()
        if one.started:
            one.gaps.append(now - last)
        else:
            one.started = now
        last = now
    one.ended = time.perf_counter()
    seen.append(one)
    return one


async def _done(seen: list[Seen], count: int) -> None:
    """Wait until so many have ended."""
    while len(seen) < count:  # noqa: ASYNC110
        await asyncio.sleep(STEP)


async def _rest(answer: Generation) -> int:
    """Read an answer to its end; how many pieces that were."""
    return len([delta async for delta in answer])


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def test_what_is_late_is_never_started(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        long = client.generate("x", max_tokens=500, priority="batch")
        await anext(long)
        reading = asyncio.create_task(_rest(long))
        late = client.generate("x", max_tokens=TOKENS, deadline=0.15)
        began = time.perf_counter()
        with pytest.raises(DeadlineExceeded):
            await anext(late)
        assert time.perf_counter() - began > 0.1
        assert not reading.done()  # It ended in time, not when its turn had come.
        assert late.started is None
        assert await reading > 0
        for _ in range(5):  # The slot is free: nothing late runs in it.
            await ask(client, seen, "interactive")
        assert statistics.median(one.ended - one.started for one in seen) < 4 * TOKENS * STEP


async def test_interactive_work_overtakes_a_full_queue(stack: RunningStack) -> None:
    """Its p99 from a slot's end to its first token is a step and 5 ms, on a machine at rest.

    How late this one is with the steps of the batch work beside it counts twice: the end of the
    one before and its own start may both be late.
    """
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        gaps: list[float] = []
        stop = asyncio.Event()

        async def user() -> None:
            while not stop.is_set():
                gaps.extend((await ask(client, seen, "batch")).gaps)

        batch = [asyncio.create_task(user()) for _ in range(BATCH)]
        await asyncio.wait_for(_done(seen, 2), 30)
        waits = []
        asked = []
        for _ in range(100):
            one = await ask(client, seen, "interactive")
            freed = max(other.ended for other in seen if other.ended < one.started)
            waits.append(one.started - freed)
            asked.append(one)
        stop.set()
        await asyncio.gather(*batch)
    # What holds up a step beside it may hold up a question as well, on its way to the queue.
    sent = LATE + max(0.0, max(gaps) - STEP)
    for one in asked:
        passed = sum(one.asked + sent < other.started < one.started for other in seen)
        assert passed <= 1, f"{passed} requests overtook it"  # One is what the floor lets by.
    late = max(0.0, percentile(gaps, 99) - STEP)
    assert percentile(waits, 50) < STEP + 0.005 + late, (waits, late)
    assert percentile(waits, 99) < STEP + 0.005 + 2 * late, (waits, late)


async def test_batch_work_does_not_starve(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(6)]

        async def user() -> None:
            while not all(task.done() for task in batch):
                await ask(client, seen, "interactive")

        users = [asyncio.create_task(user()) for _ in range(20)]
        await asyncio.wait_for(asyncio.gather(*batch), 60)
        await asyncio.gather(*users)
        served = [one for one in seen if one.priority == "interactive"]
        assert len(served) > 3 * len(batch), "batch work was not last"


async def test_what_would_be_late_is_refused_at_once(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(60)]
        await asyncio.wait(batch[:10])
        before = len(seen)
        with pytest.raises(Overloaded) as caught:
            await anext(client.generate("x", max_tokens=8, priority="batch", deadline=1.0))
        assert len(seen) - before <= 3  # Of 25 that end within its deadline.
        assert caught.value.retry_after
        await asyncio.gather(*batch)


async def test_what_would_be_late_may_wait_where_one_says_so(tmp_path: Path) -> None:
    async with Cluster(
        tmp_path,
        workers=1,
        engine=(f"step_ms={STEP * 1000:g}", "max_batch=1"),
        gateway_flags=("--no-refuse-late",),
    ) as cluster:
        client = cluster.client()
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(60)]
        await _done(seen, 10)
        with pytest.raises(DeadlineExceeded):
            await client.complete("x", max_tokens=8, priority="batch", deadline=0.15)
        await asyncio.gather(*batch)
