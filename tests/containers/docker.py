"""The Docker and Compose commands that the container tests need."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
PYTHON_IMAGE = "python:3.11-slim-bookworm"
NGINX = "nginx:1.28-alpine"
PROMETHEUS = "prom/prometheus:v3.7.3"
UP_SECONDS = 120.0
BUILD_SECONDS = 540.0


def docker(*arguments: str, seconds: float = 60.0, environment: Mapping[str, str] = {}) -> str:
    """Run one command to its end and return what it printed.

    Raises:
        AssertionError: It failed; the message holds what it said.
    """
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def problem() -> str:
    """Why there are no container tests on this machine, or ""."""
    for command in (["version"], ["compose", "version"], ["buildx", "version"]):
        try:
            done = subprocess.run(["docker", *command], capture_output=True, timeout=60)
        except FileNotFoundError:
            return "there is no docker command"
        if done.returncode:
            return f"`docker {' '.join(command)}` fails"
    return ""


def image_megabytes(image: str) -> float:
    """An image's size, all layers together."""
    return int(docker("image", "inspect", "-f", "{{.Size}}", image)) / 1e6


def nginx_image() -> str:
    """The public image where it is or can be had, else Debian's nginx."""
    return _public_or_made(NGINX, "nginx")


def prometheus_image() -> str:
    """The same of Prometheus."""
    return _public_or_made(PROMETHEUS, "prometheus")


def _public_or_made(public: str, name: str) -> str:
    with suppress(subprocess.TimeoutExpired):
        pull = ["docker", "pull", "-q", public]
        if subprocess.run(pull, capture_output=True, timeout=120).returncode == 0:
            return public
    folder = "tests/containers"
    made = f"millstream-test-{name}:local"
    file = f"{folder}/{name}.Dockerfile"
    docker("build", "-q", "-t", made, "-f", file, folder, seconds=BUILD_SECONDS)
    return made


class Compose:
    """The stack of compose.yaml under a project name of its own.

    Args:
        project: The name.
        environment: The variables of compose.yaml.
        files: Further compose files, on top of it.
    """

    def __init__(self, project: str, environment: Mapping[str, str], *files: str) -> None:
        self.project = project
        self.environment = dict(environment)
        self._files = [part for file in ("compose.yaml", *files) for part in ("-f", file)]

    def run(self, *arguments: str, seconds: float = 60.0) -> str:
        """One compose command."""
        return docker(
            "compose",
            "-p",
            self.project,
            *self._files,
            *arguments,
            seconds=seconds,
            environment=self.environment,
        )

    def up(self, workers: int = 1, **environment: str) -> None:
        """Start what is missing, or scale, and wait until all is healthy."""
        self.environment.update(environment)
        self.run(
            "up", "-d", "--wait", "--no-build", "--scale", f"worker={workers}", seconds=UP_SECONDS
        )

    def close(self) -> None:
        """Remove containers, networks and volumes."""
        self.run("down", "-v", "--timeout", "5", seconds=UP_SECONDS)

    def port(self, service: str, port: int) -> str:
        """Where a published port is, as HOST:PORT."""
        return self.run("port", service, str(port)).splitlines()[0]

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return self.run("ps", "-q", service).split()

    def logs(self, service: str) -> str:
        """All that a service wrote."""
        return self.run("logs", "--no-color", service)

    def inspect(self, container: str) -> dict[str, Any]:
        """What Docker knows about a container."""
        (told,) = json.loads(docker("inspect", container))
        return dict(told)

    def healthy(self, container: str) -> bool:
        """Whether its health check passes now."""
        return bool(self.inspect(container)["State"]["Health"]["Status"] == "healthy")

    def crash(self, container: str) -> None:
        """SIGKILL it from outside and wait until the restart policy brought it back healthy.

        `docker kill` would be a manual stop, which restart policies honour.

        Raises:
            PermissionError: Not root.
            ProcessLookupError: The engine runs in a virtual machine.
        """
        before = self.inspect(container)
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def back() -> bool:
            now = self.inspect(container)
            again = now["RestartCount"] > before["RestartCount"]
            return bool(again and now["State"]["Health"]["Status"] == "healthy")

        eventually(back, f"{container[:12]} is back", 60.0)
