"""Streams of functions: without end, with media and tensors, and over the death of a worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from millstream import Client, Media, SyncClient
from shared.errors import DeadlineExceeded, Unavailable
from tests.e2e.apps.serving import Foreign, Serving, serving
from tests.eventually import eventually

pytestmark = pytest.mark.alone

APP = "tests.e2e.apps.streams:app"
MIB = 1 << 20
ITEM = 64 * 1024
FLOODS = ["flood", "flood-sync"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("streams")) as stack:
        stack.start("first", APP)
        yield stack


@pytest.fixture
def client(stack: Serving) -> Iterator[SyncClient]:
    with stack.client() as client:
        yield client


def at_rest(client: SyncClient, name: str) -> int:
    """How many items a generator has made once it makes no more."""
    counts: list[int] = []

    def still() -> bool:
        counts.append(client.predict("made").get(name, 0))
        return counts[-1] > 0 and counts[-12:] == [counts[-1]] * 12

    eventually(still, "the generator waits", 20)
    return counts[-1]


# ---- flow control -------------------------------------------------------------------------------


@pytest.mark.parametrize("flood", FLOODS)
def test_a_generator_is_paused_while_its_reader_stops(client: SyncClient, flood: str) -> None:
    name = f"{flood} paused"
    with client.stream(flood, name=name, size=ITEM) as items:
        next(items)
        made = at_rest(client, name)
        assert made * ITEM < 8 * MIB
        for _ in range(2 * made):
            next(items)
        assert at_rest(client, name) < 3 * made + 8 * MIB // ITEM
    eventually(lambda: client.predict("made").get(f"{name} ended"), "its finally ran")


def test_memory_does_not_grow_with_what_was_streamed(stack: Serving, client: SyncClient) -> None:
    for flood in FLOODS:
        with client.stream(flood, name="warm", size=ITEM) as items:
            for _ in range(500):
                next(items)
    before = {name: stack.rss(name) for name in ("gateway", "first")}
    for flood in FLOODS:
        with client.stream(flood, name="long", size=ITEM) as items:
            for _ in range(2000):  # 125 MiB.
                next(items)
    for name, bytes_before in before.items():
        assert stack.rss(name) < bytes_before + 32 * MIB, name


def test_readers_that_stop_disturb_nobody(stack: Serving, client: SyncClient) -> None:
    before = {name: stack.rss(name) for name in ("gateway", "first")}
    with Foreign(stack.target) as foreign:
        stopped = [
            foreign.stream(
                "Flood", foreign.message("FloodRequest", name=f"stopped {n}", size=ITEM), timeout=60
            )
            for n in range(10)
        ]
        for one in stopped:
            next(one)
        for n in range(10):
            at_rest(client, f"stopped {n}")
        assert [item[0] for item in client.stream("again", n=3000)] == list(range(3000))
        for name, bytes_before in before.items():
            assert stack.rss(name) < bytes_before + 10 * 8 * MIB, name
        for one in stopped:
            one.cancel()
    ended = {f"stopped {n} ended" for n in range(10)}
    eventually(lambda: ended <= set(client.predict("made")), "all have ended")


def test_a_thread_is_told_that_nobody_waits(stack: Serving, client: SyncClient) -> None:
    async def call() -> None:
        async with Client(stack.target) as caller:
            waiting = asyncio.ensure_future(caller.predict("waiting", name="thread"))
            while "thread" not in await caller.predict("made"):
                assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(call())
    eventually(lambda: client.predict("made").get("thread ended"), "it saw the cancellation")


def test_a_deadline_holds_where_a_thread_does_not_listen(client: SyncClient) -> None:
    with pytest.raises(DeadlineExceeded):
        client.function("deaf", deadline=0.2).predict(seconds=5.0)
    assert "deaf ended" not in client.predict("made")


# ---- media and tensors --------------------------------------------------------------------------


def test_media_go_in_and_out(client: SyncClient) -> None:
    assert client.predict("look", image=Media("image/gif", b"abc")) == Media("image/gif", b"cba")
    sound = Media("audio/L16;rate=16000", bytes(3200))
    assert list(client.stream("listen", audio=sound, pieces=3)) == [sound] * 3
    videos = [Media("video/mp4", b"a"), Media("video/mp4", b"b")]
    assert client.predict("watch", videos=videos) == Media("video/mp4", b"ab")


def test_tensors_go_in_and_out(client: SyncClient) -> None:
    rows = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)
    assert client.predict("sum", rows=rows) == 66.0
    assert client.predict("sum", rows=rows[:, ::2]) == 30.0  # Not contiguous.
    assert client.predict("sum", rows=numpy.ones((0, 4), numpy.float32)) == 0.0
    large = numpy.ones((700, 1000), numpy.float32)
    for count, item in enumerate(client.stream("turned", rows=large, times=4)):
        assert item.shape == ((1000, 700) if count % 2 == 0 else (700, 1000))
        assert item.sum() == 700_000


# ---- the death of a worker ----------------------------------------------------------------------


def test_an_idempotent_stream_goes_on_where_its_worker_died(
    stack: Serving, client: SyncClient, tmp_path: Path
) -> None:
    stack.start("second", APP)
    workers = {stack.parts.pid(name): name for name in ("first", "second")}
    gate = tmp_path / "gate"
    items = client.stream("again", n=40, gate=str(gate))
    head = [next(items) for _ in range(5)]
    stack.kill(workers[head[0][1]])
    gate.touch()
    rest = list(items)
    assert [number for number, _ in head + rest] == list(range(40))
    assert {pid for _, pid in head + rest} == set(workers)


def at_work(stack: Serving, model: str) -> str:
    """The worker that runs a call of a function."""
    running = re.compile(
        rf'^millstream_gateway_worker_running{{model="{model}",worker="(\w+)-[^"]*"}} 1\.0$', re.M
    )
    found = eventually(lambda: running.search(stack.metrics()), f"{model} is at work")
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["answer", "answer-once"])
def test_an_answer_runs_again_only_where_it_may(stack: Serving, tmp_path: Path, name: str) -> None:
    spare = f"spare_{name.replace('-', '_')}"
    stack.start(spare, APP)
    gate = tmp_path / "gate"

    async def call() -> int:
        async with Client(stack.target) as caller:
            pending = asyncio.ensure_future(caller.predict(name, gate=str(gate)))
            victim = await asyncio.to_thread(at_work, stack, f"{name}@1")
            await asyncio.to_thread(stack.kill, victim)
            gate.touch()
            return int(await pending)

    if name == "answer":
        assert asyncio.run(call()) in stack.pids()
    else:
        with pytest.raises(Unavailable, match="cannot be continued elsewhere"):
            asyncio.run(call())


def test_a_stream_that_may_not_run_twice_says_how_far_it_came(
    stack: Serving, client: SyncClient
) -> None:
    stack.start("third", APP)
    while True:
        items = client.stream("once", n=1000, seconds=0.02)
        head = [next(items)]
        if head[0][1] == stack.parts.pid("third"):
            break
        items.cancel()
    head += [next(items) for _ in range(4)]
    stack.kill("third")
    with pytest.raises(Unavailable) as caught:
        for item in items:
            head.append(item)
    assert [number for number, _ in head] == list(range(len(head)))
    assert f"{len(head)}" in caught.value.message
