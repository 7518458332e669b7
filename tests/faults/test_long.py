"""What takes minutes, or three nats-servers: run by `make test-faults` (MILLSTREAM_LONG=1)."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from pathlib import Path

import pytest

from shared import subjects, wire
from shared.bus import Bus, BusOptions
from tests.faults.harness import (
    ROOT,
    TICK,
    Cluster,
    Event,
    PlainNats,
    Scenario,
    free_ports,
    play,
    until,
    verify,
)

pytestmark = pytest.mark.skipif(
    os.environ.get("MILLSTREAM_LONG") != "1", reason="takes minutes: MILLSTREAM_LONG=1 runs it"
)

MEGABYTE = 2**20
MILLION = 1_000_000
NEWER = """
import importlib, runpy
import shared.wire
from shared.wire import codec
source = open(codec.__file__).read().replace("VERSION = 1\\n", "VERSION = 2\\n", 1)
exec(compile(source, codec.__file__, "exec"), codec.__dict__)
importlib.reload(shared.wire)
assert shared.wire.VERSION == 2
runpy.run_module("gateway", run_name="__main__")
"""


async def test_a_stream_of_a_million_tokens_in_flat_memory(tmp_path: Path) -> None:
    """Four bytes a token stay at the gateway: what a continuation needs. Nothing else does."""
    async with Cluster(
        tmp_path, workers=1, engine=("step_ms=0", "mode=count", "context_length=1100000")
    ) as cluster:
        await cluster.ask(20_000)
        gateway, worker = cluster.members["g0"], cluster.members["w0"]
        before = gateway.resident, worker.resident
        count, most = 0, (0, 0)
        async for delta in cluster.client().generate("long", max_tokens=MILLION):
            assert list(delta.token_ids) == list(range(count, count + len(delta.token_ids)))
            count += len(delta.token_ids)
            if count % 1000 < len(delta.token_ids):
                most = max(most[0], gateway.resident), max(most[1], worker.resident)
        assert count == MILLION
        grown = [(high - low) / MEGABYTE for high, low in zip(most, before, strict=True)]
        assert grown[0] < 4 * MILLION / MEGABYTE + 24, grown
        assert grown[1] < 48, grown


async def test_a_cluster_of_three_loses_its_leader(tmp_path: Path) -> None:
    ports = free_ports(6)
    ports, routes = ports[:3], ports[3:]
    every = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
    servers = [
        PlainNats(
            tmp_path / f"n{number}", "-n", f"n{number}", "--cluster_name", "c",
            "--cluster", f"nats://127.0.0.1:{routes[number]}", "--routes", every,
            port=ports[number],
        )
        for number in range(3)
    ]  # fmt: skip
    for server in servers[1:]:
        server.start()
    urls = ",".join(server.url for server in servers)
    try:
        async with Cluster(tmp_path / "c", nats=servers[0], urls=urls, gateways=2) as cluster:
            bus = Bus(BusOptions((servers[1].url, servers[2].url), "admin"))
            await bus.start()
            jetstream = bus.client.jetstream(timeout=5)
            info = await jetstream.stream_info(subjects.STREAM)
            assert info.cluster is not None
            streams = asyncio.create_task(
                play(Scenario((), streams=8, tokens=600, gateways=2), cluster)
            )
            await until(lambda: cluster.running == 8, "they run")
            leader = next(s for n, s in enumerate(servers) if f"n{n}" == info.cluster.leader)
            await asyncio.to_thread(leader.kill)
            verify(await streams)
            leader.start()
            await cluster.all_ready()
            late = await cluster.ask(20, retry=True)
            verify([late])
            await bus.close()
    finally:
        for server in servers:
            server.kill()


async def test_a_newer_gateway_works_with_the_workers_there_are(tmp_path: Path) -> None:
    async with Cluster(tmp_path, workers=2, gateways=0) as cluster:
        launcher = tmp_path / "newer.py"
        launcher.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + NEWER)
        cluster.add_gateway("g0", (str(launcher),))
        await cluster.all_ready()
        scenario = Scenario((Event(0.3, "kill", "w0"),), streams=4, tokens=100)
        verify(await play(scenario, cluster))


async def test_garbage_on_every_subject_disturbs_nobody(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with Cluster(tmp_path) as cluster:
        bus = Bus(BusOptions((cluster.urls,), "hostile"))
        await bus.start()
        streams = asyncio.create_task(play(Scenario((), streams=8, tokens=300), cluster))
        await until(lambda: cluster.running > 0, "they run")
        gateway = cluster.members["g0"]
        before = gateway.resident
        worker = next(iter(cluster.beats))
        name = cluster.log("g0").split("gateway=")[1].split()[0].split("\x1b")[0]
        targets = [
            f"ms.rep.{name}.X", f"ms.gw.{name}", f"ms.ctl.{worker}", f"ms.hb.{worker}",
            f"ms.ann.{worker}", f"ms.gwhb.{name}", subjects.ASK, subjects.CANCEL,
            "$SYS.ACCOUNT.APP.DISCONNECT", "ms.req.sim.standard", "ms.req.sim.resume",
        ]  # fmt: skip
        frames = [wire.encode(wire.Echo(1)), wire.encode(wire.Go(5, None)), b"", b"\xc1", b"{}"]
        for _ in range(150):
            for target in targets:
                data = chance.choice([*frames, chance.randbytes(chance.randint(1, 200))])
                bus.publish(target, data)
            await asyncio.sleep(0.01)
        verify(await streams)
        verify([await cluster.ask(20)])
        assert gateway.resident < before + 32 * MEGABYTE
        await cluster.quiet()
        await bus.close()


async def test_a_busy_host_makes_no_failover_storm(tmp_path: Path) -> None:
    burn = "import time\nend = time.time() + 6\nwhile time.time() < end: pass"
    async with Cluster(tmp_path) as cluster:
        burning = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", burn)
            for _ in range(2 * (os.cpu_count() or 1))
        ]
        seen = await play(Scenario((), streams=16, tokens=300), cluster)
        for process in burning:
            await process.wait()
        verify(seen)
        moved = sum(one.attempts - 1 for one in seen)
        assert moved <= len(seen), f"{moved} failovers with nobody dead"


async def test_cancelling_under_load_frees_the_slot_at_once(tmp_path: Path) -> None:
    beats = ("--heartbeat-seconds", "0.01")
    async with Cluster(tmp_path, workers=2, worker_flags=beats) as cluster:
        others = [
            asyncio.create_task(cluster.ask(1000, prompt=f"other {number}")) for number in range(16)
        ]
        begins, waits = [], []
        for _ in range(10):
            asked = time.monotonic()
            generation = cluster.client().generate("mine", max_tokens=3000)
            await anext(generation)
            await until(lambda: cluster.running == 17, "it runs", 5.0)
            begins.append(time.monotonic() - asked)
            left = time.monotonic()
            await generation.cancel()
            await until(lambda: cluster.running == 16, "it ended", 5.0)
            waits.append(time.monotonic() - left)
        # The worker looks every 20 ms whether a heartbeat is due, and so does this test.
        longest = statistics.median(begins) + 0.05 + 2 * TICK
        assert statistics.median(waits) < longest, (waits, begins)
        verify(await asyncio.gather(*others))
