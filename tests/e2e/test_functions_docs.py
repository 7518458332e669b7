"""What docs/apps.md shows is run as it stands: its apps are served, its callers call them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.apps.serving import Serving, serving
from tests.e2e.running import ROOT
from tests.eventually import eventually

TEXT = (ROOT / "docs" / "apps.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
APPS = {
    found[1]: text for text in PYTHON if (found := re.match(r"# (\w+)\.py\n", text)) is not None
}
CALLERS = [text for text in PYTHON if not text.startswith("# ")]
COMMANDS = [
    line.split(" # ")[0].rstrip()
    for language, text in BLOCKS
    if language == "bash"
    for line in text.splitlines()
]
CALLS = [
    one for one in COMMANDS if re.match(r"(millstream (predict|proto)|curl|buf|grpcurl) ", one)
]
(JAVASCRIPT,) = [text for language, text in BLOCKS if language == "javascript"]
MODULES = ROOT / "examples" / "node" / "node_modules"
TOOLS = (Path(sys.executable).parent, ROOT / "tools" / "node_modules" / ".bin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name, text in APPS.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("stack"), "--http-port=0") as stack:
        for name in APPS:
            stack.spawn(name, f"{name}:app", folder)
        stack.until_served(*APPS)
        yield stack


def run(stack: Serving, folder: Path, *command: str) -> str:
    """What a command says, with the addresses of this stack."""
    here = [
        one.replace("127.0.0.1:50051", stack.target).replace("http://127.0.0.1:8080", stack.http)
        for one in command
    ]
    path = os.pathsep.join([*map(str, TOOLS), os.environ["PATH"]])
    environment = {
        "MILLSTREAM_TARGET": stack.target, "PATH": path,
        "PYTHONPATH": str(ROOT), "NODE_PATH": str(MODULES),
    }  # fmt: skip
    done = subprocess.run(
        here, capture_output=True, text=True, timeout=60, cwd=folder, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(CALLERS)))
def test_python(stack: Serving, folder: Path, number: int) -> None:
    code = CALLERS[number]
    said = run(stack, folder, sys.executable, "-c", code).splitlines()
    promised = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert promised
    assert said[: len(promised)] == promised


@pytest.mark.parametrize("command", CALLS)
def test_commands(stack: Serving, folder: Path, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "grpcurl" or (words[0] == "buf" and not (TOOLS[1] / "buf").exists()):
        pytest.skip(f"needs {words[0]}")
    said = run(stack, folder, *words)
    assert "HELLO" in said or "shout.proto" in said


def test_node(stack: Serving, folder: Path) -> None:
    if not MODULES.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs npm install in examples/node")
    run(stack, folder, "millstream", "proto", "shout", "--out", "protos")
    assert run(stack, folder, "node", "-e", JAVASCRIPT) == "HELLO!\n"


def test_leaving_a_stream_runs_its_finally(stack: Serving) -> None:
    with stack.client() as client, client.stream("ticks") as ticks:
        next(ticks)
    eventually(lambda: "nobody listens any more" in stack.parts.log("streams"), "it was told")


def test_every_name_exists() -> None:
    import millstream

    for names in re.findall(r"^from millstream import (.*)$", TEXT, re.MULTILINE):
        assert set(names.partition("#")[0].replace(" ", "").split(",")) <= set(millstream.__all__)


def test_what_is_called_has_been_shown_before() -> None:
    shown: set[str] = set()
    for text in PYTHON:
        shown |= set(re.findall(r'^@app\.model\("([\w-]+)"', text, re.MULTILINE))
        called = re.findall(r'client\.(?:predict|stream|function)\(\s*"([\w-]+)', text)
        assert set(called) <= shown
