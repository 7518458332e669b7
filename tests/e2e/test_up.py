from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import Client
from tests.e2e.running import MILLSTREAM, ROOT, RunningStack, lives, run_millstream
from tests.eventually import eventually, until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningStack]:
    """A stack that the test may break: one worker, 10 ms a step."""
    stack = RunningStack(tmp_path / "data", "--engine-arg", "step_ms=10")
    yield stack.start()
    stack.stop(signal.SIGKILL if stack.process.poll() is None else signal.SIGINT)
    eventually(lambda: not any(lives(pid) for pid in stack.seen_pids), "no process is left behind")


def serves(stack: RunningStack) -> bool:
    done = run_millstream("generate", "p", "--max-tokens", "2", "--target", stack.target)
    return done.returncode == 0 and done.stdout == " 0 1\n"


@pytest.mark.alone
def test_it_is_ready_in_time_and_answers(tmp_path: Path) -> None:
    began = time.monotonic()
    with RunningStack(tmp_path / "data") as stack:
        assert time.monotonic() - began < 15
        assert serves(stack)
        pids = stack.pids
        assert set(pids) == {"nats-server", "gateway", "worker-1"}
    assert stack.process.returncode == 0
    assert not any(lives(pid) for pid in pids.values())
    assert not (tmp_path / "data" / "stack.json").exists()


@pytest.mark.parametrize("name", ["worker-1", "gateway", "nats-server"])
def test_a_dead_child_is_restarted(own: RunningStack, name: str) -> None:
    old = own.pids[name]
    target = own.target
    os.kill(old, signal.SIGKILL)
    eventually(lambda: own.pids[name] != old, f"{name} is started again", 30)
    assert own.target == target
    eventually(lambda: serves(own), "it answers again", 60)
    assert f"{name} ended" in own.log


def test_what_cannot_start_stops_the_stack_and_says_why(tmp_path: Path) -> None:
    stack = RunningStack(tmp_path / "data", "--engine-arg", "speed=9").spawn()
    assert stack.ended() == 1
    assert "worker-1 ended with exit code 3" in stack.log
    assert "the sim engine has no setting 'speed'" in stack.log


def test_a_bad_setting_stops_the_stack_and_says_why(tmp_path: Path) -> None:
    stack = RunningStack(tmp_path / "data", "--log-level", "loud").spawn()
    assert stack.ended() == 1
    assert "--log-level: 'loud' is not allowed: must be 'debug'" in stack.log


@pytest.mark.parametrize("flag", ["--grpc-port", "--nats-port"])
def test_a_port_in_use_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = RunningStack(tmp_path / "data", flag, str(port)).spawn()
        assert stack.ended() == 1
    assert f"port {port} is in use: choose another with {flag}" in stack.log


def test_a_second_stack_in_the_same_place_is_refused(own: RunningStack) -> None:
    second = RunningStack(own.data_dir)
    second.log_file = own.log_file.with_suffix(".second")
    second.spawn()
    assert second.ended() == 1
    assert "another stack runs in" in second.log
    assert serves(own)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_stop_drains_what_is_open(own: RunningStack, number: signal.Signals) -> None:
    async with Client(own.target) as client:
        answer = client.generate("p", max_tokens=150)
        tokens = len((await anext(answer)).token_ids)
        own.process.send_signal(number)
        async for piece in answer:
            tokens += len(piece.token_ids)
    assert tokens == 150
    assert own.ended() == 0


async def test_a_second_interrupt_ends_it_at_once(own: RunningStack) -> None:
    async with Client(own.target) as client:
        answer = client.generate("p", max_tokens=30_000)
        await anext(answer)
        own.process.send_signal(signal.SIGINT)
        await until(lambda: "draining" in own.log, "it drains")
        assert own.stop(seconds=25) == 0  # The answer alone would hold it for the grace of 30 s.


def test_a_killed_supervisor_leaves_no_process(own: RunningStack) -> None:
    own.process.kill()
    own.process.wait()
    eventually(
        lambda: not any(lives(pid) for pid in own.seen_pids), "its children are gone too", 30
    )


def test_queued_data_is_found_again(own: RunningStack) -> None:
    own.stop()
    own.start()
    assert serves(own)


def test_an_existing_nats_server_is_used(own: RunningStack, tmp_path: Path) -> None:
    flags = ("--nats", own.state["nats"], "--engine-arg", "mode=count", "--served-name", "other")
    with RunningStack(tmp_path / "second", *flags) as second:
        assert set(second.pids) == {"gateway", "worker-1"}

        def listed() -> bool:
            done = run_millstream("models", "--target", own.target)
            return done.returncode == 0 and "other" in done.stdout

        eventually(listed, "the first gateway knows of it too", 30)


def test_control_c_in_generate_cancels_and_exits_130(own: RunningStack) -> None:
    process = subprocess.Popen(
        [*MILLSTREAM, "generate", "p", "--target", own.target],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read(2) == b" 0"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    eventually(lambda: serves(own), "the slot is free")
