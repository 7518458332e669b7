"""Who gets the work: workers in proportion to their speed, and never one that is busy."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.faults.harness import Cluster, Seen, until, verify

pytestmark = pytest.mark.alone

STEP = 0.01
TOKENS = 20
SLOTS = 4


async def test_the_faster_worker_gets_the_larger_share(tmp_path: Path) -> None:
    """Twice as fast is twice as much, while more is asked than both can do."""
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

        users = [asyncio.create_task(user(number)) for number in range(4 * SLOTS)]
        await until(lambda: len(seen) >= 4 * SLOTS, "the queue is never empty")
        warm = len(seen)
        await until(lambda: len(seen) >= warm + 180, "enough is done to be counted")
        counted = seen[warm:]
        stop.set()
        await asyncio.gather(*users)
    verify(seen)
    shares = Counter(one.worker for one in counted)
    assert 2 * 0.8 < shares["w0"] / shares["w1"] < 2 * 1.2, shares


async def test_nothing_waits_behind_a_busy_worker(tmp_path: Path) -> None:
    """With one worker busy the other takes the next request as soon as if both were idle."""
    async with Cluster(
        tmp_path, engine=("mode=chain", f"step_ms={STEP * 1000:g}", "max_batch=1")
    ) as cluster:
        idle, busy = [], []
        for turn in range(12):
            alone = await cluster.ask(2, prompt=f"alone {turn}")
            long = cluster.client().generate("long", max_tokens=3000)
            await anext(long)
            assert long.started is not None
            beside = await cluster.ask(2, prompt=f"beside {turn}")
            await long.cancel()
            cancelled = time.monotonic()
            verify([alone, beside])
            assert not long.started.worker.startswith(f"{beside.worker}-")
            idle.append(alone.first)
            busy.append(beside.first)
            await until(partial(cluster.idle, cancelled), "its slot is free")
        # It may come just after the pull that finds it has begun: a step is the most that costs.
        assert statistics.median(busy) < statistics.median(idle) + STEP, (idle, busy)
        assert max(busy) < max(idle) + 10 * STEP, (idle, busy)
