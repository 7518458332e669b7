"""Batched functions, called through the whole stack."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from millstream import Client, SyncClient
from shared.errors import FunctionError
from tests.e2e.running import ROOT, START_LIMIT, RunningStack
from tests.eventually import eventually

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("batched")
    with RunningStack(directory / "data") as stack, (directory / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "workers", "tests.e2e.batched_app:app"]
        worker = subprocess.Popen(
            [*command, "--nats", stack.state["nats"]], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            with SyncClient(stack.target) as client:
                eventually(
                    lambda: sum(one.engine == "app" for one in client.models()) == 3,
                    "the functions are served", START_LIMIT,
                )  # fmt: skip
            yield stack.target
        finally:
            worker.terminate()
            worker.wait(20)


async def test_eight_slow_calls_at_once_meet_in_one_batch(target: str) -> None:
    async with Client(target) as client, asyncio.timeout(60):
        sizes: list[int] = []
        took = 0.0
        while sizes != [8] * 8 or took > 0.6:
            # It learns from the first ones that a burst is worth 5 ms. Where others use the
            # machine too, eight calls often take longer than that to arrive.
            began = time.monotonic()
            sizes = await asyncio.gather(*(client.predict("slow", x=n) for n in range(8)))
            took = time.monotonic() - began


async def test_a_bad_item_fails_alone(target: str) -> None:
    async with Client(target) as client:
        got = await asyncio.gather(
            *(client.predict("picky", x=n) for n in range(40)), return_exceptions=True
        )
        assert got[::2] == list(range(0, 40, 2))
        assert all(isinstance(one, FunctionError) for one in got[1::2])


async def test_streams_of_one_batch_end_each_in_its_own_time(target: str) -> None:
    async with Client(target) as client:

        async def counted(n: int) -> list[int]:
            return [item async for item in client.stream("count", n=n)]

        wanted = (3, 0, 200, 50)
        got = await asyncio.gather(*(counted(n) for n in wanted))
        assert got == [list(range(n)) for n in wanted]
