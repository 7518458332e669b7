"""A gateway while NATS is away, and a request that the queue cannot carry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from millstream.nats_server import NatsServer
from tests.bad_input import request
from tests.e2e.running import ROOT, START_LIMIT
from tests.e2e.test_bad_input import Caller, details, refused_at_once
from tests.eventually import eventually

pytestmark = pytest.mark.alone


@contextmanager
def process(module: str, nats: str, directory: Path, *flags: str) -> Iterator[str]:
    """A gateway or worker; yields what its ready file says."""
    ready = directory / f"{module}.ready"
    child = subprocess.Popen(
        [sys.executable, "-m", module, "--ready-file", str(ready), *flags],
        env={**os.environ, "MILLSTREAM_NATS": nats},
        cwd=ROOT,
    )
    try:
        eventually(ready.exists, f"{module} is ready", START_LIMIT)
        yield ready.read_text()
    finally:
        child.terminate()
        assert child.wait(20) == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", max_payload=65536) as running:
        yield running


@pytest.fixture
def target(server: NatsServer, tmp_path: Path) -> Iterator[str]:
    flags = ("--grpc-host", "127.0.0.1", "--grpc-port", "0")
    with (
        process("gateway", server.url, tmp_path, *flags) as target,
        process("workers", server.url, tmp_path, "--engine", "sim"),
    ):
        yield target


def served(caller: Caller) -> bool:
    try:
        return bool(list(caller.generate(request())))
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
        return False


def test_while_nats_is_away_requests_are_unavailable_at_once(
    server: NatsServer, target: str
) -> None:
    caller = Caller(target)
    eventually(lambda: served(caller), "served before the fault")
    server.kill()

    eventually(lambda: not served(caller), "refused while NATS is away")
    error = refused_at_once(caller, request(), 1.0)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details(error)["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0  # type: ignore[attr-defined]
    server.restart()
    eventually(lambda: served(caller), "served after the fault", 20)


def test_a_request_beyond_max_payload_is_refused_with_both_sizes(target: str) -> None:
    caller = Caller(target)
    eventually(lambda: served(caller), "served")
    error = refused_at_once(caller, request(prompt="x" * 100_000), 1.0)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "65536" in error.details()
    assert "1002" in error.details() or "1003" in error.details()
