"""One client in several event loops, one after the other or at once."""

from __future__ import annotations

import asyncio
import gc
import threading
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from millstream import Client
from shared.ready import loop_factory
from tests.unit.fake_functions import COUNT, GREET, Functions, count, greet

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed resource:ResourceWarning",  # Uvloop's words for the next.
    "ignore:unclosed transport:ResourceWarning",  # Who leaves a loop without `close` is told.
    "ignore:Unclosed connection:ResourceWarning",
)

Loop = Callable[[], asyncio.AbstractEventLoop] | None
LOOPS = pytest.mark.parametrize("loop", [None, loop_factory()], ids=["asyncio", "uvloop"])
LIMIT = 10.0


class Served:
    """Functions on a server in a thread of its own."""

    def __init__(self) -> None:
        self.functions = Functions()
        self.functions.serve(GREET, greet)
        self.functions.serve(COUNT, count)
        self.target = ""
        self._there = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self.functions.serving() as self.target:
            self._there.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._there.wait(LIMIT)

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    served.start()
    yield served
    served.stop()
    gc.collect()  # While the warnings are ours.


async def unary(client: Client) -> object:
    (only,) = {one.engine for one in await client.models()} - {"app"}
    return only


async def stream(client: Client) -> object:
    return "".join([piece.text async for piece in client.generate("p")])


async def function(client: Client) -> object:
    answers = await asyncio.gather(*(client.predict("greet", who=str(n)) for n in range(4)))
    return answers[3]


async def items(client: Client) -> object:
    return [item async for item in client.stream("count", to=3)]


def run(loop: Loop, work: Callable[[Client], Any], client: Client, *, close: bool = False) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(LIMIT):
            found = await work(client)
            if close:
                await client.close()
            return found

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(bounded())


@LOOPS
@pytest.mark.parametrize(
    ("work", "expected"),
    [(unary, "sim"), (stream, " 0 1 2"), (function, "hello 3"), (items, [0, 1, 4])],
)
def test_a_client_outlives_a_loop(
    served: Served, loop: Loop, work: Callable[[Client], Any], expected: object
) -> None:
    client = Client(served.target)
    assert run(loop, work, client) == expected
    assert run(loop, work, client) == expected
    assert run(loop, work, client, close=True) == expected
    assert run(loop, work, client, close=True) == expected


def test_what_a_closed_loop_left_open_is_closed(served: Served) -> None:
    client = Client(served.target)
    sockets: list[TransportSocket] = []

    async def connect(client: Client) -> None:
        await client.models()
        protocol = client._connection()._protocol
        assert protocol is not None
        sockets.append(protocol.connection._transport.get_extra_info("socket"))

    run(None, connect, client)
    run(None, connect, client)
    assert [found.fileno() for found in sockets[:1]] == [-1]
    run(None, connect, client, close=True)
    assert [found.fileno() for found in sockets] == [-1, -1, -1]


def test_a_client_that_was_used_in_another_loop_is_closed(served: Served) -> None:
    client = Client(served.target)
    run(None, unary, client)
    asyncio.run(client.close())
    assert run(None, unary, client, close=True) == "sim"


@LOOPS
def test_loops_at_once_do_not_touch_each_others_connection(served: Served, loop: Loop) -> None:
    client = Client(served.target)
    turns = threading.Barrier(2, timeout=LIMIT)

    async def by_turns(client: Client) -> object:
        async with client.generate("p") as answer:
            first = await anext(answer)
            await asyncio.to_thread(turns.wait)
            assert await client.predict("greet", who="you") == "hello you"
            number = client._connection().connection
            await asyncio.to_thread(turns.wait)
            assert await unary(client) == "sim"
            assert client._connection().connection == number
            rest = [piece.text async for piece in answer]
        await asyncio.to_thread(turns.wait)
        return first.text + "".join(rest)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run(loop, by_turns, client), range(2)))
    assert both == [" 0 1 2", " 0 1 2"]
    asyncio.run(client.close())


def test_a_close_elsewhere_ends_the_connection_of_a_loop_that_runs(served: Served) -> None:
    client = Client(served.target)
    connected, closed = threading.Event(), threading.Event()

    async def stay(client: Client) -> object:
        await client.models()
        (protocol,) = client._connection()._all
        connected.set()
        assert await asyncio.to_thread(closed.wait, LIMIT)
        await protocol.lost.wait()
        return await unary(client)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(run, None, stay, client, close=True)
        assert connected.wait(LIMIT)
        asyncio.run(client.close())
        closed.set()
        assert staying.result(LIMIT) == "sim"
