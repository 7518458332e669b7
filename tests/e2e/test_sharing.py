"""Who gets the work: workers in proportion to their speed, and never one that is busy."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from millstream import Generation
from tests.faults.harness import Cluster, Seen, until, verify

pytestmark = pytest.mark.alone

STEP = 0.01
TOKENS = 20
SLOTS = 4


def seconds_a_token(seen: list[Seen], worker: str) -> float:
    """Between two tokens of a worker, in the middle of what was seen."""
    spans = [one.times[-1] - one.times[0] for one in seen if one.worker == worker]
    return statistics.median(spans) / (TOKENS - 1)


async def note(answer: Generation, times: list[float]) -> None:
    """Write down when the pieces of an answer came."""
    async for _ in answer:
        times.append(time.monotonic())  # noqa: PERF401  # It is cancelled on the way.


async def test_the_faster_worker_gets_the_larger_share(tmp_path: Path) -> None:
    """Twice as fast is twice as much, while more is asked than both can do.

    How much faster it is here is measured: a step takes what it is told, and a moment more.
    """
    async with Cluster(
        tmp_path,
        engine=("mode=chain", f"max_batch={SLOTS}"),
        each={
            "w0": (f"step_ms={STEP * 1000:g}",),
            "w1": (f"step_ms={STEP * 2000:g}",),
        },
    ) as cluster:
        seen: list[Seen] = []
        stop = asyncio.Event()

        async def user(number: int) -> None:
            while not stop.is_set():
                seen.append(await cluster.ask(TOKENS, prompt=f"user {number}"))

        users = [asyncio.create_task(user(number)) for number in range(8 * SLOTS)]
        await until(lambda: len(seen) >= 8 * SLOTS, "the queue is never empty")
        warm = len(seen)
        await until(lambda: len(seen) >= warm + 180, "enough is done to be counted")
        counted = seen[warm:]
        stop.set()
        await asyncio.gather(*users)
    verify(seen)
    shares = Counter(one.worker for one in counted)
    faster = seconds_a_token(counted, "w1") / seconds_a_token(counted, "w0")
    assert faster * 0.8 < shares["w0"] / shares["w1"] < faster * 1.2, (shares, faster)


async def test_nothing_waits_behind_a_busy_worker(tmp_path: Path) -> None:
    """With one worker busy the other takes the next request as soon as if both were idle."""
    async with Cluster(
        tmp_path, engine=("mode=chain", f"step_ms={STEP * 1000:g}", "max_batch=1")
    ) as cluster:
        idle, busy, late = [], [], []
        for turn in range(12):
            alone = await cluster.ask(2, prompt=f"alone {turn}")
            long = cluster.client().generate("long", max_tokens=3000)
            await anext(long)
            assert long.started is not None
            times = [time.monotonic()]
            reading = asyncio.create_task(note(long, times))
            beside = await cluster.ask(2, prompt=f"beside {turn}")
            times.append(time.monotonic())
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            cancelled = time.monotonic()
            worst = max(after - before for before, after in pairwise(times))
            late.append(max(0.0, worst - STEP))
            verify([alone, beside])
            assert not long.started.worker.startswith(f"{beside.worker}-")
            idle.append(alone.first)
            busy.append(beside.first)
            await until(partial(cluster.idle, cancelled), "its slot is free")
        # It may come just after the pull that finds it has begun: a step is the most that costs.
        # What held up the busy worker's steps meanwhile may have held up the other as well.
        most = statistics.median(idle) + STEP + statistics.median(late)
        assert statistics.median(busy) < most, (idle, busy, late)
        assert max(busy) < max(idle) + 10 * STEP + max(late), (idle, busy, late)
