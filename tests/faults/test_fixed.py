"""The fixed set of `make test`: every kind of fault once, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from millstream import Client
from millstream.v1 import inference_pb2 as pb
from shared.errors import (
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    PoisonRequest,
    Unavailable,
    UnknownModel,
)
from tests.faults.harness import Cluster, Event, PlainNats, Scenario, play, until, verify

FREE_WITHIN = 0.05
"""Seconds that a slot whose client leaves takes longer to be somebody else's than a free one takes
to be anybody's, medians."""

REFUSED_WITHIN = 0.01
"""Seconds that a refusal takes longer than two answers that need nothing, medians: the broker's has
as far to go again."""

SLOTS = 8
WANTED = 20

SHARED = {
    "a worker is killed and comes back": Scenario(
        (Event(0.4, "kill", "w0"), Event(0.6, "restart", "w0")), gateways=2
    ),
    "a worker is stopped and wakes": Scenario(
        (Event(0.4, "freeze", "w1"), Event(1.4, "wake", "w1")), gateways=2, tokens=180
    ),
    "nats is killed and restarts": Scenario(
        (Event(0.4, "nats_kill"), Event(0.7, "nats_start")), gateways=2
    ),
    "nats loses its storage": Scenario(
        (Event(0.4, "nats_lose"), Event(0.7, "nats_start")), gateways=2
    ),
    "a gateway is stopped for two seconds": Scenario(
        (Event(0.4, "freeze", "g0"), Event(2.4, "wake", "g0")), gateways=2, tokens=250
    ),
}
"""These leave the cluster as they found it."""

ALONE = {
    "an engine hangs, and goes on": Scenario(
        (), each=(("w0", ("hang_at=60", "hang_ms=900")),), tokens=180
    ),
    "an engine dies": Scenario((), each=(("w0", ("die_at=60",)),), tokens=120),
    "a worker is told to stop": Scenario((Event(0.4, "terminate", "w0"),)),
}


async def test_streams_survive(tmp_path: Path) -> None:
    async with Cluster(tmp_path, gateways=2) as cluster:
        for name, scenario in SHARED.items():
            try:
                seen = await play(scenario, cluster)
                verify(seen)
                await cluster.all_ready()
                await cluster.quiet()
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
            if "gateway" in name:  # The other one tells whether a worker really stood still.
                woken, other = (any(one.attempts > 1 for one in seen[k::2]) for k in (0, 1))
                assert other or not woken, "it declared a live worker dead"


@pytest.mark.parametrize("name", ALONE)
async def test_streams_survive_where(name: str, tmp_path: Path) -> None:
    scenario = ALONE[name]
    async with Cluster(
        tmp_path, each=dict(scenario.each), worker_flags=("--drain-grace", "0.2")
    ) as cluster:
        verify(await play(scenario, cluster))
        await cluster.quiet()


async def test_heartbeats_alone_find_a_dead_worker(tmp_path: Path) -> None:
    """Somebody's own nats-server: no DISCONNECT events."""
    scenario = Scenario((Event(0.4, "kill", "w0"),), tokens=200)
    async with Cluster(tmp_path, nats=PlainNats(tmp_path / "nats")) as cluster:
        seen = await play(scenario, cluster)
        verify(seen)
        moved = [one.worst_gap for one in seen if one.attempts > 1]
        stayed = [one.worst_gap for one in seen if one.attempts == 1]  # What the machine adds.
        assert max(moved, default=0.0) < 3.0 + max(stayed, default=0.0), (moved, stayed)


async def test_poison_dies_and_its_neighbours_finish(tmp_path: Path) -> None:
    async with Cluster(
        tmp_path, workers=3, engine=("step_ms=20", "mode=chain", "crash_on=POISON")
    ) as cluster:
        crashed = 0

        async def supervise() -> None:
            nonlocal crashed
            while True:
                for name, member in cluster.members.items():
                    assert member.process is not None
                    if name.startswith("w") and member.process.poll() is not None:
                        crashed += 1
                        member.start()
                await asyncio.sleep(0.2)

        watching = asyncio.create_task(supervise())
        neighbours = [
            asyncio.create_task(cluster.ask(60, prompt=f"innocent {number}")) for number in range(6)
        ]
        poison = await cluster.ask(10, prompt="this is POISON indeed")
        seen = await asyncio.gather(*neighbours)
        watching.cancel()
        assert isinstance(poison.error, PoisonRequest), poison.error
        verify(seen)
        assert crashed <= 5, crashed


async def test_cancelling(tmp_path: Path) -> None:
    """One slot: the next request starts as soon as the one before has left it."""
    async with Cluster(
        tmp_path, workers=1, gateways=2, worker_flags=("--max-batch", "1")
    ) as cluster:
        client = cluster.client()
        begins: list[float] = []
        waits: tuple[list[float], list[float]] = [], []  # By this gateway, and by the other one.
        for turn in range(20):
            asked = time.monotonic()
            first = client.generate("first", max_tokens=3000, request_id=f"first-{turn}")
            await anext(first)
            begins.append(time.monotonic() - asked)
            await _queued(cluster, 0)
            second = client.generate("second", max_tokens=2)
            waiting = asyncio.ensure_future(anext(second))
            await _queued(cluster, 1)
            left = time.monotonic()
            if turn % 2:
                await cluster.client("g1").cancel(f"first-{turn}")
            await first.cancel()
            await waiting
            waits[turn % 2].append(time.monotonic() - left)
            await second.cancel()
        longest = max(statistics.median(each) for each in waits)
        assert longest < statistics.median(begins) + FREE_WITHIN, (waits, begins)

        # A queued one is taken out of its stream without any worker touching it.
        first = client.generate("first", max_tokens=3000)
        await anext(first)
        await _queued(cluster, 0)
        tokens = _tokens(cluster)
        second = client.generate("second", max_tokens=2, request_id="queued")
        waiting = asyncio.ensure_future(anext(second))
        await _queued(cluster, 1)
        await cluster.client("g1").cancel("queued")
        with pytest.raises(Cancelled):
            await waiting
        await _queued(cluster, 0)
        await anext(first)
        await first.cancel()
        await until(lambda: _tokens(cluster) > tokens, "a heartbeat tells of the tokens")
        late = await cluster.ask(3000, deadline=1.0)
        assert isinstance(late.error, DeadlineExceeded)
        assert 5 < len(late.tokens) < 130  # At 10 ms a step.
        await cluster.quiet()


async def test_cancel_during_prefill(tmp_path: Path) -> None:
    async with Cluster(
        tmp_path, workers=1, engine=("step_ms=5", "mode=chain", "prefill_ms=60000")
    ) as cluster:
        generation = cluster.client().generate("slow", max_tokens=5)
        waiting = asyncio.ensure_future(anext(generation))
        await until(lambda: cluster.running == 1, "it is in its prefill")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await generation.cancel()
        await until(lambda: cluster.running == 0, "its slot is free", 5.0)


async def test_a_killed_gateway_leaves_nothing(tmp_path: Path) -> None:
    flags = ("--max-batch", "4")
    async with Cluster(tmp_path, workers=1, gateways=2, worker_flags=flags) as cluster:
        lost = [
            asyncio.create_task(cluster.ask(3000, gateways=["g0"], prompt=f"lost {n}"))
            for n in range(12)
        ]
        await until(lambda: cluster.running == 4, "all slots are taken")
        mine = asyncio.create_task(cluster.ask(50, gateways=["g1"]))
        killed = time.monotonic()
        cluster.kill("g0")
        for one in await asyncio.gather(*lost):
            assert isinstance(one.error, Unavailable)
        seen = await mine
        verify([seen])
        # The lease, a claim, and what the machine adds.
        assert seen.times[0] - killed < 3.0 + 0.7 + seen.worst_gap
        await cluster.quiet()


async def test_rolling_restarts_fail_nothing(tmp_path: Path) -> None:
    async with Cluster(
        tmp_path,
        gateways=2,
        worker_flags=("--drain-grace", "0.3"),
        gateway_flags=("--drain-grace", "10"),
    ) as cluster:
        stop = asyncio.Event()
        results: list[object] = []

        async def load(number: int) -> None:
            gateways = ["g0", "g1"] if number % 2 else ["g1", "g0"]
            while not stop.is_set():
                seen = await cluster.ask(30, prompt=f"load {number}", gateways=gateways, retry=True)
                results.append(seen)
                verify([seen])

        loads = [asyncio.create_task(load(number)) for number in range(6)]
        for name in ("w0", "w1", "g0", "g1"):
            await cluster.roll(name)
        stop.set()
        await asyncio.gather(*loads)
        assert len(results) > 20
        await cluster.quiet()


async def test_overload_is_refused_at_once(tmp_path: Path) -> None:
    """Ten times the capacity, with deadlines: what is taken is done in time."""
    async with Cluster(
        tmp_path,
        workers=1,
        engine=("step_ms=25", "mode=chain"),
        worker_flags=("--max-batch", str(SLOTS)),
        gateway_flags=("--max-queue", "40"),
    ) as cluster:
        await until(lambda: cluster.beats, "a heartbeat tells of the steps")
        peak = await _goodput(cluster, clients=9, seconds=2.5)
        begun = cluster.members["g0"].resident
        load = asyncio.create_task(_goodput(cluster, clients=80, seconds=5.0))
        refusals, controls = await _refusals(cluster, load)
        over = await load
        assert over.done > peak.done, (peak, over)
        assert over.share >= 0.7 * peak.share, (peak, over)
        assert min(len(refusals), len(controls)) >= 10, over
        late = statistics.median(refusals) - 2 * statistics.median(controls)
        assert late < REFUSED_WITHIN, (late, refusals, controls)
        assert cluster.members["g0"].resident < begun + 40 * 2**20
        ended = time.monotonic()
        verify([await cluster.ask(5, retry=True)])
        assert time.monotonic() - ended < 2.0


@dataclass(slots=True)
class Goodput:
    """What an offered load came to.

    Attributes:
        done: Whole answers.
        late: Those that their deadline ended.
        refused: Those that were not taken.
        share: Of what the engine could make in the steps that it took, what whole answers got:
            how long a step took is the machine's.
    """

    done: int = 0
    late: int = 0
    refused: int = 0
    share: float = 0.0


async def _refusals(
    cluster: Cluster, load: asyncio.Task[Goodput]
) -> tuple[list[float], list[float]]:
    """Seconds until a refusal, and beside each until "no such model", while there is load."""
    refusals, controls = [], []
    async with Client(cluster.targets["g0"]) as client:
        while not load.done():
            asked = time.monotonic()
            with pytest.raises(UnknownModel):
                await client.complete("x", model="nobody's")
            known = time.monotonic()
            try:
                await client.complete("x", max_tokens=WANTED, deadline=0.5)
            except Overloaded:
                refusals.append(time.monotonic() - known)
                controls.append(known - asked)
            except DeadlineExceeded:
                continue
            await asyncio.sleep(0.05)
    return refusals, controls


async def _goodput(cluster: Cluster, clients: int, seconds: float) -> Goodput:
    result = Goodput()
    tokens, steps = _tokens(cluster), _steps(cluster)
    until_ = time.monotonic() + seconds

    async def one(number: int) -> None:
        while time.monotonic() < until_:
            seen = await cluster.ask(WANTED, prompt=f"load {number}", deadline=2.5)
            if seen.error is None:
                result.done += 1
            elif isinstance(seen.error, Overloaded):
                assert seen.error.retry_after is not None
                result.refused += 1
                await asyncio.sleep(0.4)
            elif isinstance(seen.error, DeadlineExceeded):
                result.late += 1
            else:
                raise seen.error

    await asyncio.gather(*(one(number) for number in range(clients)))
    made = result.done * WANTED
    await until(lambda: _tokens(cluster) >= tokens + made, "a heartbeat tells of all tokens")
    result.share = made / (SLOTS * (_steps(cluster) - steps))
    return result


async def test_a_reader_that_stops_hurts_nobody(tmp_path: Path) -> None:
    """It is refused past its buffer, and memory stays where it was."""
    async with Cluster(
        tmp_path, workers=1, engine=("step_ms=0", "mode=chain", "context_length=3000000")
    ) as cluster:
        verify([await cluster.ask(2000)])
        gateway, worker = cluster.members["g0"], cluster.members["w0"]
        begun = gateway.resident + worker.resident
        # Without its probe the client's window stays small: else it takes megabytes unread.
        options = [("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(cluster.targets["g0"], options) as channel:
            generate = channel.unary_stream(
                "/millstream.v1.Inference/Generate",
                request_serializer=pb.GenerateRequest.SerializeToString,
                response_deserializer=pb.GenerateResponse.FromString,
            )
            sampling = pb.Sampling(max_tokens=2_000_000)
            call = generate(pb.GenerateRequest(prompt="slow", sampling=sampling))
            await call.read()
            verify([await cluster.ask(200)])
            await until(lambda: cluster.done(2200), "the slow reader was ended", 60.0)
            assert gateway.resident + worker.resident < begun + 64 * 2**20
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def _queued(cluster: Cluster, count: int) -> None:
    deadline = time.monotonic() + 5.0
    while await cluster.queued() != count:
        assert time.monotonic() < deadline, f"{await cluster.queued()} queued"
        await asyncio.sleep(0.005)


def _tokens(cluster: Cluster) -> int:
    return sum(beat.tokens for beat in cluster.beats.values())


def _steps(cluster: Cluster) -> int:
    return sum(beat.steps for beat in cluster.beats.values())
