"""A cancellation that is swallowed is said again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shared.tasks import cancel


async def test_a_cancellation_that_is_swallowed_is_said_again() -> None:
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            heard += 1
            if heard == 2:
                raise ValueError("at last")

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await cancel(task)
    assert heard == 2
    assert isinstance(task.exception(), ValueError)


async def test_what_is_done_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "done"))
    await task
    await cancel(task)
    assert task.result() == "done"
