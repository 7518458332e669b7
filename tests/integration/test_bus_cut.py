"""The bus behind a proxy that cuts its connection half way through connecting."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.errors import ConnectionClosedError

from millstream.nats_server import NatsServer
from shared.bus import Bus, BusOptions
from shared.natsio import LeanClient
from shared.ready import loop_factory
from tests.eventually import until

LIMIT = 20.0
"""Seconds; what went wrong here once went wrong for good."""
RESET = struct.pack("ii", 1, 0)
SUBJECTS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Cut:
    """Where and how a connection ends.

    Attributes:
        after: What must have been said on it.
        times: How often, by either side.
        reset: Whether by RST, else by FIN.
        side: Who says it.
    """

    after: bytes
    times: int = 1
    reset: bool = False
    side: str = "client"


class Proxy:
    """Stands before the server, in threads; ends its n-th connection by the n-th plan, if any.

    What follows the words that a cut waits for is not passed on, nor is any answer to them.

    Attributes:
        accepted: So many connections began.
        cuts: So many of them are ended or about to be.
    """

    def __init__(self, host: str, port: int) -> None:
        self.plans: list[Cut | None] = []
        self.always: Cut | None = None
        self.cuts = 0
        self.accepted = 0
        self._server = host, port
        self._reset: bool | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.url = f"nats://127.0.0.1:{self._listening.getsockname()[1]}"
        self._run(self._accept)

    def close(self) -> None:
        self._closed = True
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)
        self._listening.close()

    def end(self, *, reset: bool) -> None:
        """End what is open now."""
        self._reset = reset

    def _run(self, function: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=function, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client = self._listening.accept()[0]
            except OSError:
                return
            self.accepted += 1
            self._run(self._serve, client, self.plans.pop(0) if self.plans else self.always)

    def _serve(self, client: socket.socket, cut: Cut | None) -> None:
        with client, socket.create_connection(self._server) as server:
            reset = False
            with suppress(OSError):
                reset = self._pump(client, server, cut)
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _pump(self, client: socket.socket, server: socket.socket, cut: Cut | None) -> bool:
        """Pass on until an end, and return whether that is a reset."""
        other = {client: server, server: client}
        said = b""
        while not self._closed:
            readable = select.select([client, server], [], [], 0.005)[0]
            if self._reset is not None:
                reset, self._reset = self._reset, None
                self.cuts += 1
                return reset
            for source in readable:
                data = source.recv(65536)
                if not data:
                    return False
                other[source].sendall(data)
                if cut is None or (source is client) != (cut.side == "client"):
                    continue
                said += data
                if said.count(cut.after) >= cut.times:
                    self.cuts += 1
                    return cut.reset
        return False


@dataclass(slots=True)
class Heard:
    """A bus with three subscriptions, and what became of it."""

    bus: Bus
    changes: list[str] = field(default_factory=list)
    got: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        for subject in SUBJECTS:
            self.bus.listen(subject, lambda subject, *_: self.got.add(subject))
        self.bus.on_connect.append(lambda: self.changes.append("up"))
        self.bus.on_disconnect.append(lambda: self.changes.append("down"))

    async def hears_all(self) -> None:
        self.got.clear()
        for subject in SUBJECTS:
            assert self.bus.publish(subject, b"1")
        await until(lambda: len(self.got) == len(SUBJECTS), "all subscriptions stand", LIMIT)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def proxy(nats: NatsServer) -> Iterator[Proxy]:
    proxy = Proxy(nats.host, nats.port)
    yield proxy
    proxy.close()


def run(proxy: Proxy, scenario: Callable[[Heard], Coroutine[Any, Any, None]]) -> None:
    """Run in the loop that the processes have, uvloop's; no task may be left."""

    async def guarded() -> None:
        bus = Bus(BusOptions((proxy.url,), "cut"))
        try:
            await scenario(Heard(bus))
        finally:
            await asyncio.wait_for(bus.close(), LIMIT)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(guarded())


async def starts_and_hears(heard: Heard) -> None:
    await asyncio.wait_for(heard.bus.start(), LIMIT)
    assert heard.bus.connected
    assert heard.changes == ["up"]
    await heard.hears_all()
    assert heard.changes == ["up"]


async def is_back_and_hears(proxy: Proxy, heard: Heard, cuts: int) -> None:
    # By one connection more than were cut: the last one of those may still look well.
    await until(
        lambda: proxy.accepted > proxy.cuts == cuts and heard.bus.connected, "it is back", LIMIT
    )
    await heard.hears_all()
    assert heard.changes[0] == heard.changes[-1] == "up"
    assert all(one != other for one, other in zip(heard.changes, heard.changes[1:], strict=False))


def held(monkeypatch: pytest.MonkeyPatch, method: str, times: int, *, first: bool) -> None:
    """Make the client slow: around `method` it waits until its connection is seen to be lost.

    Args:
        monkeypatch: Undoes it.
        method: Of LeanClient.
        times: How many calls are held; a first one of a good connection is not held.
        first: Whether the very first call is held.
    """
    real = getattr(LeanClient, method)
    calls = 0

    async def slow(self: LeanClient, *args: Any, **options: Any) -> None:
        nonlocal calls
        await real(self, *args, **options)
        if method == "_process_info" and not options:
            return  # Said again once connected: no step of connecting.
        calls += 1
        if (0 if first else 1) < calls <= times + (0 if first else 1):
            transport = self._tcp()
            assert transport is not None
            await until(transport.is_closing, "it is seen to be lost", LIMIT, every=0)
            for _ in range(3):  # It is lost one turn, and closed the next.
                await asyncio.sleep(0)

    monkeypatch.setattr(LeanClient, method, slow)


by_end_or_reset = pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
at_every_step = pytest.mark.parametrize(
    "cut",
    [
        pytest.param(Cut(b"INFO", side="server"), id="info"),
        pytest.param(Cut(b"PING\r\n"), id="connect"),
        pytest.param(Cut(b"PONG\r\n", side="server"), id="connected"),
        pytest.param(Cut(b"SUB "), id="subscriptions"),
        pytest.param(Cut(b"PING\r\n", times=2), id="barrier"),
    ],
)


@by_end_or_reset
@at_every_step
def test_a_cut_while_it_starts(proxy: Proxy, cut: Cut, reset: bool) -> None:
    proxy.plans = [Cut(cut.after, cut.times, reset, cut.side)]
    run(proxy, starts_and_hears)
    assert proxy.cuts == 1


@pytest.mark.parametrize(
    ("method", "after"),
    [("_process_info", b"INFO"), ("connect", b"PONG\r\n"), ("listen", b"PONG\r\n")],
)
def test_a_slow_start_finds_its_connection_reset(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, method: str, after: bytes
) -> None:
    proxy.plans = [Cut(after, reset=True, side="server")]
    held(monkeypatch, method, 1, first=True)
    run(proxy, starts_and_hears)
    assert proxy.cuts == 1


@by_end_or_reset
@at_every_step
def test_cuts_while_it_reconnects(proxy: Proxy, cut: Cut, reset: bool) -> None:
    proxy.plans = [None] + [Cut(cut.after, cut.times, reset, cut.side)] * 3

    async def scenario(heard: Heard) -> None:
        await heard.bus.start()
        proxy.end(reset=reset)
        await is_back_and_hears(proxy, heard, 4)

    run(proxy, scenario)


@pytest.mark.parametrize("count", [1, 3])
def test_a_slow_reconnect_finds_its_connection_reset(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """After INFO, before it writes CONNECT: this is where uvloop's transports raise."""
    proxy.plans = [None] + [Cut(b"INFO", reset=True, side="server")] * count
    held(monkeypatch, "_process_info", count, first=False)

    async def scenario(heard: Heard) -> None:
        await heard.bus.start()
        proxy.end(reset=True)
        await is_back_and_hears(proxy, heard, 1 + count)

    run(proxy, scenario)


def test_a_slow_reconnect_is_reset_before_it_subscribes(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.plans = [None] + [Cut(b"PONG\r\n", reset=True, side="server")] * 2
    held(monkeypatch, "_process_connect_init", 2, first=False)

    async def scenario(heard: Heard) -> None:
        await heard.bus.start()
        proxy.end(reset=True)
        await is_back_and_hears(proxy, heard, 3)

    run(proxy, scenario)


def test_it_closes_while_it_reconnects(proxy: Proxy) -> None:
    proxy.plans = [None]
    proxy.always = Cut(b"INFO", reset=True, side="server")

    async def scenario(heard: Heard) -> None:
        await heard.bus.start()
        proxy.end(reset=True)
        await until(lambda: heard.changes == ["up", "down"], "it notices", LIMIT, every=0)
        await asyncio.wait_for(heard.bus.close(), 1.5)  # A try to connect may take 2.
        assert heard.bus.client.is_closed

    run(proxy, scenario)


def test_closing_ends_a_start(proxy: Proxy) -> None:
    proxy.always = Cut(b"SUB ", reset=True)

    async def scenario(heard: Heard) -> None:
        starting = asyncio.create_task(heard.bus.start())
        await until(lambda: proxy.cuts > 2, "it tries", LIMIT)
        assert not starting.done()
        await heard.bus.close()
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(starting, LIMIT)
        assert not heard.changes

    run(proxy, scenario)
