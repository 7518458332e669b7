from __future__ import annotations

import json
import subprocess
from pathlib import Path

from millstream import SyncClient
from tests.e2e.running import MILLSTREAM, ROOT, RunningStack, run_millstream


def test_generate_streams_text(stack: RunningStack) -> None:
    done = run_millstream("generate", "hello", "--target", stack.target, "--max-tokens", "4")
    assert (done.returncode, done.stdout, done.stderr) == (0, " 0 1 2 3\n", "")


def test_generate_json(stack: RunningStack) -> None:
    done = run_millstream(
        *("generate", "hello", "--target", stack.target, "--max-tokens", "3", "--json", "--chat")
    )
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events][:: len(events) - 1] == ["started", "finished"]
    pieces = events[1:-1]
    assert "".join(piece["text"] for piece in pieces) == " 0 1 2"
    assert sum(len(piece["token_ids"]) for piece in pieces) == 3
    assert events[-1]["reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 3


def test_generate_reads_the_prompt_from_stdin(stack: RunningStack) -> None:
    done = subprocess.run(
        [*MILLSTREAM, "generate", "-", "--target", stack.target, "--max-tokens", "1"],
        input="hello",
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (0, " 0\n")


def test_a_refusal_is_one_line_and_code_2(stack: RunningStack) -> None:
    done = run_millstream("generate", "hello", "--target", stack.target, "--temperature", "-1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "temperature" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_model_is_code_1(stack: RunningStack) -> None:
    done = run_millstream("generate", "hello", "--target", stack.target, "--model", "nope")
    assert done.returncode == 1
    assert "nope" in done.stderr


def test_nobody_there_is_code_1() -> None:
    done = run_millstream("models", "--target", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no gateway at 127.0.0.1:1")


def test_models(stack: RunningStack) -> None:
    table = run_millstream("models", "--target", stack.target)
    assert table.returncode == 0
    heading, *rows = table.stdout.splitlines()
    assert heading.split()[:3] == ["NAME", "STATE", "WORKERS"]
    assert ["sim", "ready", "2"] in [row.split()[:3] for row in rows]
    listed = json.loads(run_millstream("models", "--json", "--target", stack.target).stdout)
    assert ("sim", 2) in [(one["name"], one["workers"]) for one in listed]


def test_the_processes_have_commands() -> None:
    for command in ("gateway", "worker"):
        done = run_millstream(command, "--help")
        assert done.returncode == 0
        assert f"usage: millstream {command}" in done.stdout
        refused = run_millstream(command, "--metrics-port", "many")
        assert refused.returncode == 2
        assert refused.stderr.startswith("--metrics-port: 'many' is not allowed")


def test_demo_with_the_simulated_engine(tmp_path: Path) -> None:
    done = run_millstream("demo", "--once", "--engine", "sim", "--grpc-port", "0", seconds=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for number in ("1", "2", "3"):
        told = " ".join(line[3:] for line in lines if line.startswith(f"{number}| "))
        assert told.endswith(" 117 118 119")
        assert any(line.startswith(f"{number}: TTFT ") and "tokens/s" in line for line in lines)


def test_the_sync_client(stack: RunningStack) -> None:
    with SyncClient(stack.target) as client:
        answer = client.generate("hello", model="sim", max_tokens=5)
        assert "".join(piece.text for piece in answer) == " 0 1 2 3 4"
        assert answer.finished is not None
        assert answer.finished.usage.completion_tokens == 5
        assert client.health()
        assert client.model("sim").state == "ready"
