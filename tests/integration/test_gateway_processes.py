from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import Client
from millstream.nats_server import NatsServer
from shared.errors import Unavailable
from tests.eventually import eventually
from tests.integration.processes import START_LIMIT, Parts


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with (
        NatsServer(tmp_path / "nats") as nats,
        Parts(tmp_path, {"MILLSTREAM_NATS": nats.url}) as parts,
    ):
        yield parts


def children(pid: int) -> list[int]:
    """The gateways below a parent, without multiprocessing's own helper."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, listed) if b"spawn_main" in command(child)]


def command(pid: int) -> bytes:
    """What a process was started with; nothing of one that has gone since it was listed."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def answers(target: str, connections: int) -> int:
    """How many of so many connections, each of its own, get an answer of four tokens."""

    async def one() -> int:
        async with Client(target) as client:
            try:
                return len([token async for token in client.generate("hi", max_tokens=4)])
            except Unavailable:  # As a process says that has no NATS yet.
                return 0

    return sum([count > 0 for count in await asyncio.gather(*(one() for _ in range(connections)))])


def test_two_processes_share_a_port_and_one_that_dies_comes_back(parts: Parts) -> None:
    target = parts.gateway("--processes", "2")
    parts.worker("w")
    parent = parts.pid("gateway")
    before = children(parent)
    assert len(before) == 2
    assert asyncio.run(answers(target, 16)) == 16
    os.kill(before[0], signal.SIGKILL)
    eventually(
        lambda: len(set(children(parent)) - {before[0]}) == 2, "another one runs", START_LIMIT
    )
    eventually(lambda: asyncio.run(answers(target, 8)) == 8, "all are served again", START_LIMIT)
    os.kill(parent, signal.SIGTERM)
    assert parts.wait("gateway") == 0


def test_a_start_that_fails_ends_all(parts: Parts, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.pem")
    flags = ["--processes", "2", "--tls-cert", missing, "--tls-key", missing]
    parts.spawn("gateway", "gateway", ["--grpc-port", "0", *flags])
    assert parts.wait("gateway") == 6


def test_a_stop_in_the_middle_of_the_start_ends_all(parts: Parts) -> None:
    parts.spawn("gateway", "gateway", ["--grpc-port", "0", "--processes", "4"])
    parent = parts.pid("gateway")
    eventually(lambda: children(parent) != [], "the first one is started", START_LIMIT)
    os.kill(parent, signal.SIGTERM)
    assert parts.wait("gateway") == 0
