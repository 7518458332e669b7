"""Real processes under faults: a cluster to be hurt, clients that write down what they saw.

A scenario is data: who runs, what is asked, what goes wrong when (`Scenario`). `play` runs it and
returns what the clients saw; `verify` holds the promise against it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from millstream import Client
from millstream.nats_server import NatsServer, find_binary
from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.errors import MillstreamError
from shared.processes import dies_with_parent
from workers.engines.sim import chain_broken

ROOT = Path(__file__).parents[2]
START_LIMIT = 30.0
QUIET_LIMIT = 15.0
TICK = 0.02


async def until(condition: Callable[[], bool], what: str, seconds: float = START_LIMIT) -> None:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(TICK)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PlainNats:
    """A nats-server as somebody else runs it: no system events, all defaults.

    Args:
        directory: Holds data and log.
        extra: More flags, for a cluster.
    """

    def __init__(self, directory: Path, *extra: str, port: int = 0) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    find_binary(), "-a", "127.0.0.1", "-p", str(self.port), "-js",
                    "-sd", str(self.directory / "data"), *self._extra,
                ],
                stdout=log, stderr=log, preexec_fn=dies_with_parent(),
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    stop = kill


@dataclass(slots=True)
class Member:
    """One process of the cluster."""

    name: str
    command: list[str]
    ready_file: Path
    log_file: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def start(self) -> None:
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=self.env, preexec_fn=dies_with_parent(),
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait()


@dataclass(slots=True)
class Seen:
    """What one client saw.

    Attributes:
        tokens: In the order of their arrival.
        times: Of their arrival, monotonic.
    """

    prompt: str
    wanted: int
    opened: float
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: MillstreamError | None = None
    attempts: int = 0
    tries: int = 0
    worker: str = ""

    @property
    def done(self) -> bool:
        return self.attempts > 0

    @property
    def worst_gap(self) -> float:
        """Seconds between two tokens, at most."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return max((after - before for before, after in pairs), default=0.0)

    def broken(self) -> str:
        """What is wrong with a finished answer in chain mode, or ""."""
        place = chain_broken(tuple(self.prompt.encode()), self.tokens)
        if place is not None:
            return f"the chain breaks at {place}"
        if self.error is None and len(self.tokens) != self.wanted:
            return f"{len(self.tokens)} of {self.wanted} tokens"
        return ""


class Cluster:
    """NATS, gateways `g0..`, workers `w0..`, each a real process.

    Args:
        directory: For data, logs and ready files.
        workers: How many.
        gateways: How many.
        engine: Engine arguments of every worker.
        each: More engine arguments by worker name.
        gateway_flags: Flags of every gateway.
        worker_flags: Flags of every worker.
        nats: The server; by default the one of `millstream up`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        gateways: int = 1,
        engine: Sequence[str] = ("step_ms=10", "mode=chain"),
        each: dict[str, Sequence[str]] | None = None,
        gateway_flags: Sequence[str] = (),
        worker_flags: Sequence[str] = (),
        nats: NatsServer | PlainNats | None = None,
        urls: str = "",
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.nats = nats or NatsServer(directory / "nats")
        self.members: dict[str, Member] = {}
        self.targets: dict[str, str] = {}
        self.beats: dict[str, wire.Heartbeat] = {}
        self.beat_times: dict[str, float] = {}
        self._urls = urls
        self._clients: dict[str, Client] = {}
        self._engine, self._each = engine, each or {}
        self._gateway_flags, self._worker_flags = gateway_flags, worker_flags
        self._names = (
            [f"g{number}" for number in range(gateways)],
            [f"w{number}" for number in range(workers)],
        )
        self._bus: Bus | None = None

    async def __aenter__(self) -> Self:
        self.nats.start()
        try:
            for name in self._names[0]:
                self.add_gateway(name)
            for name in self._names[1]:
                self.add_worker(name)
            await self.all_ready()
            await self._watch()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()
        if self._bus is not None:
            await self._bus.close()
        for member in self.members.values():
            member.end()
        self.nats.stop()

    @property
    def urls(self) -> str:
        return self._urls or self.nats.url

    def add_gateway(self, name: str, launcher: Sequence[str] = ("-m", "gateway")) -> Member:
        return self._add(
            name, [*launcher, "--grpc-host", "127.0.0.1", "--grpc-port", "0", *self._gateway_flags]
        )

    def add_worker(self, name: str, launcher: Sequence[str] = ("-m", "workers")) -> Member:
        arguments = [*self._engine, *self._each.get(name, ())]
        flags = [flag for argument in arguments for flag in ("--engine-arg", argument)]
        return self._add(name, [*launcher, "--engine", "sim", *flags, *self._worker_flags])

    def _add(self, name: str, arguments: list[str]) -> Member:
        ready = self.directory / f"{name}.ready"
        member = Member(
            name,
            [sys.executable, *arguments, "--name", name, "--ready-file", str(ready)],
            ready,
            self.directory / f"{name}.log",
            os.environ | {"MILLSTREAM_NATS": self.urls, "PYTHONUNBUFFERED": "1"},
        )
        self.members[name] = member
        member.start()
        return member

    async def all_ready(self) -> None:
        """Wait until every gateway knows every worker."""
        for member in self.members.values():
            await self.ready(member.name)
        workers = sum(name.startswith("w") for name in self.members)
        for name in self.targets:
            await self._knows(name, workers)

    async def ready(self, name: str) -> None:
        """Wait until one process serves."""
        member = self.members[name]
        await until(lambda: self._is_ready(member), f"{name} is ready")
        if name.startswith("g"):
            self.targets[name] = member.ready_file.read_text()
            client = self._clients.pop(name, None)
            if client is not None:
                await client.close()

    def _is_ready(self, member: Member) -> bool:
        assert member.process is not None
        assert member.process.poll() is None, member.log_file.read_text()[-2000:]
        return member.ready_file.exists()

    async def _knows(self, gateway: str, workers: int) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            models = await self.client(gateway).models()
            if sum(model.workers for model in models) == workers and (
                not workers or await self.client(gateway).health()
            ):
                return
            await asyncio.sleep(TICK)
        raise AssertionError(f"{gateway} does not see {workers} workers: {models}")

    def client(self, gateway: str = "g0") -> Client:
        """A client of a gateway, one connection each."""
        if gateway not in self._clients:
            self._clients[gateway] = Client(self.targets[gateway])
        return self._clients[gateway]

    def log(self, name: str) -> str:
        return self.members[name].log_file.read_text(errors="replace")

    # ---- watching -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        self._bus = Bus(BusOptions(tuple(self.urls.split(",")), "watcher"))
        self._bus.listen(subjects.HEARTBEATS, self._on_beat)
        await self._bus.start()

    def _on_beat(self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        beat = wire.decode(data)
        assert isinstance(beat, wire.Heartbeat)
        self.beats[beat.worker] = beat
        self.beat_times[beat.worker] = time.monotonic()

    @property
    def running(self) -> int:
        """What live workers run, by their latest heartbeats."""
        horizon = time.monotonic() - 1.0
        return sum(
            beat.running for name, beat in self.beats.items() if self.beat_times[name] > horizon
        )

    @property
    def idle(self) -> bool:
        """Whether a worker has just said that it runs nothing, and none says otherwise.

        A worker whose loop is busy says nothing for a while, which is no sign of rest.
        """
        horizon = time.monotonic() - 1.0
        fresh = [beat for name, beat in self.beats.items() if self.beat_times[name] > horizon]
        return bool(fresh) and not any(beat.running for beat in fresh)

    async def queued(self) -> int:
        """Messages in the streams."""
        assert self._bus is not None
        jetstream = self._bus.client.jetstream(timeout=5)
        total = 0
        for stream in (subjects.STREAM, subjects.RESUME_STREAM):
            total += (await jetstream.stream_info(stream)).state.messages
        return total

    async def quiet(self, seconds: float = QUIET_LIMIT) -> None:
        """Wait until nothing runs and nothing is queued."""
        deadline = time.monotonic() + seconds
        while True:
            left = (self.running, await self.queued())
            if left == (0, 0):
                return
            assert time.monotonic() < deadline, f"left behind: {left} running and queued"
            await asyncio.sleep(0.1)

    # ---- asking ---------------------------------------------------------------------------------

    async def ask(
        self,
        tokens: int,
        *,
        prompt: str = "tell me",
        gateways: Sequence[str] = ("g0",),
        retry: bool = False,
        deadline: float | None = None,
    ) -> Seen:
        """One request to its end.

        Args:
            tokens: How many.
            prompt: The prompt.
            gateways: Whom to ask; with `retry`, one after the other.
            retry: Ask again where it failed before its first token and may be retried.
            deadline: The client's, in seconds.
        """
        seen = Seen(prompt, tokens, time.monotonic())
        while True:
            gateway = gateways[seen.tries % len(gateways)]
            seen.tries += 1
            try:
                await self._follow(seen, gateway, deadline)
            except MillstreamError as error:
                if retry and error.retryable and not seen.tokens and seen.tries < 100:
                    await asyncio.sleep(0.05)
                    continue
                seen.error = error
            return seen

    async def _follow(self, seen: Seen, gateway: str, deadline: float | None) -> None:
        generation = self.client(gateway).generate(
            seen.prompt, max_tokens=seen.wanted, deadline=deadline
        )
        async for delta in generation:
            now = time.monotonic()
            seen.tokens.extend(delta.token_ids)
            seen.times.extend([now] * len(delta.token_ids))
        assert generation.finished is not None
        seen.attempts = generation.finished.attempts

    # ---- hurting --------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.members[name].signal(signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self.members[name].signal(signal.SIGSTOP)

    def wake(self, name: str) -> None:
        """SIGCONT."""
        self.members[name].signal(signal.SIGCONT)

    def terminate(self, name: str) -> None:
        """SIGTERM."""
        self.members[name].signal(signal.SIGTERM)

    async def roll(self, name: str) -> None:
        """SIGTERM, wait for the end, start again, wait until it serves."""
        member = self.members[name]
        self.terminate(name)
        assert member.process is not None
        process = member.process
        await until(lambda: process.poll() is not None, f"{name} ended")
        assert process.returncode == 0, self.log(name)[-2000:]
        member.start()
        await self.ready(name)

    def restart(self, name: str) -> None:
        """Start a killed process again."""
        self.members[name].end()
        self.members[name].start()

    def lose_storage(self) -> None:
        """What a nats-server that runs on a disk of its container loses."""
        import shutil

        for data in (self.nats.directory / "jetstream", self.nats.directory / "data"):
            shutil.rmtree(data, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that goes wrong.

    Attributes:
        at: Seconds after the streams began to flow.
        do: kill, freeze, wake, terminate, restart; nats_kill, nats_lose (its storage too),
            nats_start, nats_freeze, nats_wake.
        target: Whom it hits.
    """

    at: float
    do: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Streams, and what goes wrong while they flow.

    Attributes:
        streams: How many, spread over the gateways.
        tokens: Each.
        events: In the order of their times.
        workers: How many.
        gateways: How many.
        engine: Engine arguments.
        each: More of them by worker.
    """

    events: tuple[Event, ...]
    streams: int = 8
    tokens: int = 150
    workers: int = 2
    gateways: int = 1
    engine: tuple[str, ...] = ("step_ms=10", "mode=chain")
    each: tuple[tuple[str, tuple[str, ...]], ...] = ()


async def play(scenario: Scenario, cluster: Cluster) -> list[Seen]:
    """Run a scenario on a cluster that stands; what the clients saw."""
    names = sorted(cluster.targets)
    tasks = [
        asyncio.create_task(
            cluster.ask(
                scenario.tokens, prompt=f"stream {number}", gateways=[names[number % len(names)]]
            )
        )
        for number in range(scenario.streams)
    ]
    start = time.monotonic()
    await until(lambda: cluster.running > 0, "the streams run")
    begun = time.monotonic()
    for event in scenario.events:
        await asyncio.sleep(max(0.0, begun + event.at - time.monotonic()))
        await strike(cluster, event)
    seen = await asyncio.gather(*tasks)
    assert time.monotonic() - start < 120
    return seen


async def strike(cluster: Cluster, event: Event) -> None:
    """Let one event happen."""
    if event.do == "nats_kill":
        await asyncio.to_thread(cluster.nats.kill)
    elif event.do == "nats_start":
        cluster.nats.start()
    elif event.do == "nats_lose":
        await asyncio.to_thread(cluster.nats.kill)
        cluster.lose_storage()
    elif event.do in ("nats_freeze", "nats_wake"):
        if cluster.nats.process is not None:
            stop = event.do == "nats_freeze"
            cluster.nats.process.send_signal(signal.SIGSTOP if stop else signal.SIGCONT)
    else:
        {
            "kill": cluster.kill,
            "terminate": cluster.terminate,
            "freeze": cluster.freeze,
            "wake": cluster.wake,
            "restart": cluster.restart,
        }[event.do](event.target)


def verify(seen: Sequence[Seen], *, failures: int = 0) -> None:
    """Every answer ended once, complete and unbroken; at most so many failed."""
    failed = [one for one in seen if one.error is not None]
    assert len(failed) <= failures, [one.error for one in failed]
    broken = [(one.prompt, why) for one in seen if (why := one.broken())]
    assert not broken, broken
