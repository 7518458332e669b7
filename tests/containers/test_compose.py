"""The stack of compose.yaml, built and started for real: scaled and killed under load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from millstream import SyncClient
from tests.containers.docker import ROOT, Compose, docker
from tests.containers.load import Load, until
from tests.eventually import eventually

BUF = ROOT / "tools" / "node_modules" / ".bin" / "buf"
MODEL = "tiny-stories"


def serving(target: str, model: str) -> int:
    """How many workers the gateway counts for a model."""
    with SyncClient(target) as client:
        return sum(one.workers for one in client.models(deadline=5.0) if one.name == model)


def checked(load: Load) -> None:
    tally = load.tally
    assert not tally.problems, tally.problems[:5]
    assert tally.answers > 0


def test_a_client_streams_through_the_published_port(
    torch_stack: Compose, numbers: dict[str, str]
) -> None:
    with SyncClient(torch_stack.port("gateway", 50051)) as client:
        answer = client.generate("Once upon a time", model=MODEL, max_tokens=16)
        pieces = [delta.text for delta in answer]
        assert len(pieces) > 1
        assert answer.finished is not None
        assert answer.finished.usage.completion_tokens == 16
    numbers["worker (torch) memory"] = memory(torch_stack, "worker")


def test_buf_curl_streams_through_the_published_port(torch_stack: Compose) -> None:
    if not BUF.exists() or shutil.which("bash") is None:
        pytest.skip("needs buf: npm ci in tools/")
    told = subprocess.run(
        [
            "bash",
            "examples/buf_curl.sh",
            torch_stack.port("gateway", 50051),
            "Once upon a time",
            "8",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        env={"BUF": str(BUF), "PATH": f"{sys.exec_prefix}/bin:/usr/bin:/bin"},
    )
    assert told.returncode == 0, told.stderr
    assert '"completionTokens": 8' in told.stdout


def test_scaling_under_load_fails_no_request(sim_stack: Compose, numbers: dict[str, str]) -> None:
    target = sim_stack.port("gateway", 50051)
    with Load(target) as load:
        until(load, lambda: load.tally.answers >= 8, "one worker answers")
        sim_stack.up(workers=3)
        until(load, lambda: len(load.tally.workers) >= 3, "three workers answer")
        sim_stack.up(workers=1)
        assert len(sim_stack.containers("worker")) == 1
        until(load, lambda: serving(target, "sim") == 1, "one worker is listed")
        before = load.tally.answers
        until(load, lambda: load.tally.answers >= before + 8, "one worker goes on")
        numbers["gateway memory under load"] = memory(sim_stack, "gateway")
        numbers["worker (sim) memory under load"] = memory(sim_stack, "worker")
    numbers["answers while scaling 1-3-1"] = str(load.tally.answers)
    checked(load)


def test_a_killed_worker_costs_no_token(sim_stack: Compose, numbers: dict[str, str]) -> None:
    sim_stack.up(workers=2)
    with Load(sim_stack.port("gateway", 50051)) as load:
        until(load, lambda: len(load.tally.workers) >= 2, "both workers answer")
        crash(sim_stack, sim_stack.containers("worker")[0])
        until(load, lambda: load.tally.attempts > 0, "some answers moved to another worker")
    numbers["answers that moved when a worker was killed"] = str(load.tally.attempts)
    checked(load)


def test_a_killed_broker_costs_no_token(sim_stack: Compose) -> None:
    (nats,) = sim_stack.containers("nats")
    target = sim_stack.port("gateway", 50051)
    text = "".join(f" {k}" for k in range(600))
    with SyncClient(target) as client:
        answer = client.generate("x", model="sim", max_tokens=600, deadline=60.0)
        pieces = [next(answer).text]
        crash(sim_stack, nats)
        pieces += [delta.text for delta in answer]
        assert "".join(pieces) == text
    (gateway,) = sim_stack.containers("gateway")
    eventually(lambda: sim_stack.healthy(gateway), "the gateway serves again", 30.0)
    with SyncClient(target) as client:
        assert client.complete("x", model="sim", max_tokens=3).text == " 0 1 2"


def test_logs_are_json_and_say_no_prompt(torch_stack: Compose) -> None:
    secret = "a prompt that no log may hold"
    with SyncClient(torch_stack.port("gateway", 50051)) as client:
        client.complete(secret, model=MODEL, max_tokens=4, deadline=60.0)
    for service in ("gateway", "worker"):
        (container,) = torch_stack.containers(service)
        lines = docker("logs", container).splitlines()
        assert all(json.loads(line)["service"] == service for line in lines)
        assert secret not in "".join(lines)


def test_a_stop_is_a_drain(stack: Compose) -> None:
    stack.run("stop", seconds=90.0)
    for service in ("gateway", "worker", "nats"):
        (container,) = stack.run("ps", "-aq", service).split()
        assert stack.inspect(container)["State"]["ExitCode"] == 0, stack.logs(service)


def memory(stack: Compose, service: str) -> str:
    """What a service's first container uses now."""
    container = stack.containers(service)[0]
    return docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split(" /")[0]


def crash(stack: Compose, container: str) -> None:
    try:
        stack.crash(container)
    except (PermissionError, ProcessLookupError) as error:
        pytest.skip(f"cannot kill a container's process from here: {error}")
