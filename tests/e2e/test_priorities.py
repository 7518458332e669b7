"""Who goes first: classes, the floor under batch work, and deadlines, over the whole stack."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from millstream import Client
from millstream.questions import Priority
from shared.errors import DeadlineExceeded, Overloaded
from tests.e2e.running import RunningStack

STEP = 0.005
TOKENS = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One worker that runs one request at a time."""
    flags = ["--engine-arg", f"step_ms={STEP * 1000:g}", "--engine-arg", "max_batch=1"]
    with RunningStack(tmp_path_factory.mktemp("priorities") / "data", *flags) as running:
        yield running


@dataclass(slots=True)
class Seen:
    """When a request was taken, and when it ended."""

    priority: Priority
    started: float = 0.0
    ended: float = 0.0


async def ask(client: Client, seen: list[Seen], priority: Priority) -> Seen:
    """Ask, and note when the first token and the end came."""
    one = Seen(priority)
    async for _ in client.generate("x", max_tokens=TOKENS, priority=priority):
        if not one.started:
            one.started = time.perf_counter()
    one.ended = time.perf_counter()
    seen.append(one)
    return one


async def test_what_is_late_is_never_started(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        long = client.generate("x", max_tokens=100, priority="batch")
        await anext(long)
        late = client.generate("x", max_tokens=TOKENS, deadline=0.15)
        began = time.perf_counter()
        with pytest.raises(DeadlineExceeded):
            await anext(late)
        assert 0.1 < time.perf_counter() - began < 0.45
        assert late.started is None
        assert len([delta async for delta in long]) > 0
        await ask(client, seen, "interactive")  # The slot is free: nothing late runs in it.
        assert seen[0].ended - seen[0].started < 4 * TOKENS * STEP


async def test_interactive_work_overtakes_a_full_queue(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(40)]
        await asyncio.wait(batch, return_when=asyncio.FIRST_COMPLETED)
        waits = []
        for _ in range(12):
            one = await ask(client, seen, "interactive")
            freed = max(other.ended for other in seen if other.ended < one.started)
            waits.append(one.started - freed)
        assert sum(not task.done() for task in batch) > 10, "the queue was not full"
        await asyncio.gather(*batch)
        # From a slot's end to the first token of who got it: the pull, and a step.
        assert statistics.median(waits) < STEP + 0.010, waits
        assert max(waits) < (TOKENS + 2) * STEP + 0.1, waits


async def test_batch_work_does_not_starve(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(6)]

        async def user() -> None:
            while not all(task.done() for task in batch):
                await ask(client, seen, "interactive")

        users = [asyncio.create_task(user()) for _ in range(6)]
        await asyncio.wait_for(asyncio.gather(*batch), 60)
        await asyncio.gather(*users)
        served = [one for one in seen if one.priority == "interactive"]
        assert len(served) > 3 * len(batch), "batch work was not last"


async def test_what_would_be_late_is_refused_at_once(stack: RunningStack) -> None:
    async with Client(stack.target) as client:
        seen: list[Seen] = []
        batch = [asyncio.create_task(ask(client, seen, "batch")) for _ in range(30)]
        await asyncio.wait(batch[:10])
        began = time.perf_counter()
        with pytest.raises(Overloaded) as caught:
            await anext(client.generate("x", max_tokens=8, priority="batch", deadline=0.15))
        assert time.perf_counter() - began < 0.12
        assert caught.value.retry_after
        await asyncio.gather(*batch)
