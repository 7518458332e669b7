"""NATS, gateways and workers as processes, to be asked and to be hurt."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from millstream import Client
from millstream.nats_server import NatsServer
from shared.errors import MillstreamError
from tests.faults.harness.processes import START_LIMIT, TICK, Member, until
from tests.faults.harness.seen import Seen
from tests.faults.harness.watch import Watch


class Cluster(Watch):
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
        patience: Seconds that a start may take.
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
        nats: NatsServer | None = None,
        urls: str = "",
        patience: float = START_LIMIT,
    ) -> None:
        super().__init__()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.nats = nats or NatsServer(directory / "nats")
        self.members: dict[str, Member] = {}
        self.targets: dict[str, str] = {}
        self._urls = urls
        self._patience = patience
        self._clients: dict[str, Client] = {}
        self._engine, self._each = engine, each or {}
        self._gateway_flags, self._worker_flags = gateway_flags, worker_flags
        self._names = (
            [f"g{number}" for number in range(gateways)],
            [f"w{number}" for number in range(workers)],
        )

    async def __aenter__(self) -> Self:
        self.nats.start()
        try:
            for name in self._names[0]:
                self.add_gateway(name)
            for name in self._names[1]:
                self.add_worker(name)
            await self.all_ready()
            await self.watch(self.urls)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()
        await self.unwatch()
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
        await until(lambda: self._is_ready(member), f"{name} is ready", self._patience)
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
        await self.follow(seen, gateways=gateways, retry=retry, deadline=deadline)
        return seen

    async def follow(
        self,
        seen: Seen,
        *,
        gateways: Sequence[str],
        retry: bool = False,
        deadline: float | None = None,
    ) -> None:
        """The same, written down where others can read it meanwhile."""
        while True:
            gateway = gateways[seen.tries % len(gateways)]
            seen.tries += 1
            try:
                await self._follow_once(seen, gateway, deadline)
            except MillstreamError as error:
                if retry and error.retryable and not seen.tokens and seen.tries < 100:
                    await asyncio.sleep(0.05)
                    continue
                seen.error = error
            return

    async def _follow_once(self, seen: Seen, gateway: str, deadline: float | None) -> None:
        generation = self.client(gateway).generate(
            seen.prompt, max_tokens=seen.wanted, deadline=deadline
        )
        async for delta in generation:
            now = time.monotonic()
            seen.tokens.extend(delta.token_ids)
            seen.times.extend([now] * len(delta.token_ids))
            assert generation.started is not None
            seen.worker = generation.started.worker.rsplit("-", 1)[0]
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
        for data in (self.nats.directory / "jetstream", self.nats.directory / "data"):
            shutil.rmtree(data, ignore_errors=True)
