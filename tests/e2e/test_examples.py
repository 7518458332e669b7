"""The callers of `examples/`, each against the running stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, RunningStack

EXAMPLES = ROOT / "examples"
BUF = ROOT / "tools" / "node_modules" / ".bin" / "buf"


def needed(path: Path | str, what: str) -> str:
    """A tool that `make test` installs; where it is missing the test is skipped, but not in CI."""
    found = shutil.which(path)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")
    assert found is not None
    return found


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | environment
    )


def test_python_by_reflection(stack: RunningStack) -> None:
    script = str(EXAMPLES / "python" / "generate_by_reflection.py")
    done = call(sys.executable, script, stack.target, "hello", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == " 0 1 2 3\n[4 tokens]\n"


def test_python_shows_the_status(stack: RunningStack) -> None:
    script = str(EXAMPLES / "python" / "generate_by_reflection.py")
    done = call(sys.executable, script, stack.target, "hello", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("INVALID_ARGUMENT: ")
    assert "max_tokens" in done.stderr


def test_node(stack: RunningStack) -> None:
    node = needed("node", "Node.js")
    if not (EXAMPLES / "node" / "node_modules").exists():
        needed("examples/node/node_modules", "npm install in examples/node (make test does it)")
    script = str(EXAMPLES / "node" / "generate.mjs")
    done = call(node, script, stack.target, "hello", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == " 0 1 2 3\n[4 tokens]\n"
    refused = call(node, script, stack.target, "hello", "0")
    assert refused.returncode == 1
    assert refused.stderr.startswith("INVALID_ARGUMENT: ")


def test_buf_curl(stack: RunningStack) -> None:
    buf = needed(BUF, "buf (make test installs it)")
    script = str(EXAMPLES / "buf_curl.sh")
    done = call(script, stack.target, 'say "hello"', "3", BUF=buf)
    assert done.returncode == 0, done.stderr
    events = parse_all(done.stdout)
    assert "started" in events[0]
    assert "".join(event["delta"]["text"] for event in events[1:-1]) == " 0 1 2"
    assert events[-1]["finished"]["reason"] == "FINISH_REASON_LENGTH"


def parse_all(text: str) -> list[dict[str, dict[str, str]]]:
    """JSON objects written one after the other."""
    decoder, events, position = json.JSONDecoder(), [], 0
    while position < len(text):
        event, position = decoder.raw_decode(text, position)
        events.append(event)
        position += len(text[position:]) - len(text[position:].lstrip())
    return events
