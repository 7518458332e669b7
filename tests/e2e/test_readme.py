"""What the README shows is run as it stands, against the running stack."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from millstream import SyncClient
from tests.e2e.running import ROOT, START_LIMIT, RunningStack
from tests.eventually import eventually

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [
    text for language, text in BLOCKS if language == "python" and not text.startswith("# app.py")
]
APP = next(text for _, text in BLOCKS if text.startswith("# app.py"))
COMMANDS = [
    line.split(" # ")[0].strip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
]
CALLS = [one for one in COMMANDS if re.match(r"millstream (generate|models)|python |node |ex", one)]
DEFAULT_TARGET = "127.0.0.1:50051"
TOOLS = (
    Path(sys.executable).parent,
    ROOT / "tools" / "node_modules" / ".bin",
)


def environment(stack: RunningStack) -> dict[str, str]:
    path = os.pathsep.join([*map(str, TOOLS), os.environ["PATH"]])
    return os.environ | {"MILLSTREAM_TARGET": stack.target, "PATH": path}


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python(stack: RunningStack, number: int) -> None:
    code = PYTHON[number].replace(DEFAULT_TARGET, stack.target)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(stack),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" 0 1 2 ")


@pytest.mark.parametrize("command", CALLS)
def test_calls(stack: RunningStack, command: str) -> None:
    if command.startswith("node ") and not (ROOT / "examples/node/node_modules").exists():
        pytest.skip("needs npm install in examples/node (make test does it)")
    if "buf_curl" in command and not (TOOLS[1] / "buf").exists():
        pytest.skip("needs buf (make test installs it)")
    done = subprocess.run(
        shlex.split(command.replace(DEFAULT_TARGET, stack.target)),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(stack),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"(^ 0 1 2 |\" 2\"|\bsim\b)", done.stdout)


def test_the_app_is_served(stack: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = environment(stack) | {"MILLSTREAM_NATS": stack.state["nats"]}
    ready = tmp_path / "worker.ready"
    worker = [sys.executable, "-m", "workers", "app:app", "--ready-file", str(ready)]
    (call,) = [one for one in COMMANDS if one.startswith("millstream predict")]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(worker, cwd=tmp_path, env=env, stderr=log)
    try:
        eventually(ready.exists, "the worker is ready", START_LIMIT)
        with SyncClient(stack.target) as client:
            eventually(
                lambda: any(one.engine == "app" and one.workers for one in client.models()),
                "the gateway knows it",
            )
        told = subprocess.run(
            shlex.split(call), capture_output=True, text=True, timeout=30, env=env, cwd=tmp_path
        )
    finally:
        process.terminate()
        process.wait(20)
    assert told.stdout == "HELLO!!!\n", told.stderr


def test_every_make_target_exists() -> None:
    targets = {one.split()[1] for one in COMMANDS if one.startswith("make ")}
    assert targets == {"demo", "test"}
    for target in targets:
        subprocess.run(["make", "-n", target], check=True, capture_output=True, cwd=ROOT)


def test_every_flag_exists() -> None:
    for command in ("gateway", "worker"):
        table = README.split(f"| {command} | default | |")[1].split("\n\n")[0]
        flags = set(re.findall(r"--[a-z][a-z-]+", table))
        run = [sys.executable, "-m", "gateway" if command == "gateway" else "workers", "--help"]
        told = subprocess.run(run, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        assert flags
        assert flags <= set(re.findall(r"--[a-z][a-z-]+", told))
