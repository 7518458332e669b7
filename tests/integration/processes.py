"""A gateway and workers as processes of their own, against a given server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
START_LIMIT = 60.0
"""Seconds in which a process has started, on two cores that have other things to do as well."""


class Parts:
    """Processes that are ended together, in the order gateway, workers.

    Args:
        folder: Holds their logs and ready files.
        environment: Of all of them.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._processes):
            self.stop(name)

    def gateway(self, *flags: str, **environment: str) -> str:
        """Start a gateway on a free port; returns its target."""
        self._start("gateway", "gateway", ["--grpc-port", "0", *flags], environment)
        host, port = self.ready("gateway").splitlines()[0].rsplit(":", 1)
        return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"

    def worker(self, name: str, *flags: str, **environment: str) -> None:
        """Start a worker of the sim engine and wait until it is ready."""
        self._start(name, "workers", ["--name", name, "--engine", "sim", *flags], environment)
        self.ready(name)

    def ready(self, name: str) -> str:
        """Wait for a ready file; returns what it says."""
        file = self._folder / f"{name}.ready"

        def there() -> bool:
            process = self._processes[name]
            assert process.poll() is None, self.log(name)
            return file.exists()

        eventually(there, f"{name} is ready", START_LIMIT)
        return file.read_text()

    def log(self, name: str) -> str:
        """What a process said."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def pid(self, name: str) -> int:
        """Its process id."""
        return self._processes[name].pid

    def wait(self, name: str, seconds: float = START_LIMIT) -> int:
        """Wait for its end, which may be that of its start; returns the exit code."""
        return self._processes[name].wait(seconds)

    def spawn(self, name: str, module: str, flags: list[str], **environment: str) -> None:
        """Start a process that is not expected to become ready."""
        self._start(name, module, flags, environment)

    def stop(self, name: str) -> None:
        """End a process in order."""
        process = self._processes.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def _start(
        self, name: str, module: str, flags: list[str], environment: Mapping[str, str]
    ) -> None:
        flags = [*flags, "--ready-file", str(self._folder / f"{name}.ready"), "--drain-grace", "1"]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self._environment, **environment},
            )
