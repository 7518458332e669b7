"""When clocks tick, and rests that end early."""

from __future__ import annotations

import asyncio

import pytest

from shared.ticks import TICK, Rest, pause


@pytest.mark.parametrize(
    ("dues", "seconds"),
    [([], 0.1), ([10.05], 0.05), ([9.0], TICK), ([10.001, 10.09], TICK), ([12.0], 0.1)],
)
def test_a_pause_ends_when_something_is_due_within_bounds(
    dues: list[float], seconds: float
) -> None:
    assert pause(dues, 10.0, 0.1) == pytest.approx(seconds)


async def test_a_rest_takes_its_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await Rest().for_(0.02)
    assert loop.time() - began >= 0.015


async def test_a_rest_ends_early() -> None:
    rest = Rest()
    rest.end()  # Nobody rests: nothing is kept of it.
    resting = asyncio.ensure_future(rest.for_(60.0))
    await asyncio.sleep(0)
    assert not resting.done()
    rest.end()
    rest.end()
    await asyncio.wait_for(resting, 1.0)


async def test_a_rest_can_be_cancelled() -> None:
    rest = Rest()
    resting = asyncio.ensure_future(rest.for_(60.0))
    await asyncio.sleep(0)
    resting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resting
    rest.end()
