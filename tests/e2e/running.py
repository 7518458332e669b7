"""`millstream up` as a process under test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
START_LIMIT = 90.0
"""Seconds in which a stack has started or failed to, where others use the machine too."""
MILLSTREAM = (sys.executable, "-c", "from millstream.cli import main; main()")


class RunningStack:
    """A stack in a data directory of its own, on free ports.

    Args:
        data_dir: Where it keeps its state.
        flags: More flags of `millstream up`; they win over the defaults here.
    """

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self.data_dir = data_dir
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self.seen_pids: set[int] = set()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def state(self) -> dict[str, Any]:
        """What `stack.json` says."""
        state: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        self.seen_pids |= set(state["pids"].values())
        return state

    @property
    def target(self) -> str:
        return str(self.state["target"])

    @property
    def pids(self) -> dict[str, int]:
        pids: dict[str, int] = self.state["pids"]
        return pids

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def spawn(self) -> Self:
        flags = [
            "--engine",
            "sim",
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            "--nats-port",
            "0",
            *self._flags,
        ]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*MILLSTREAM, "up", *flags, "--data-dir", str(self.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        return self

    def start(self, seconds: float = START_LIMIT) -> Self:
        """Spawn it and wait until it is ready."""
        self.spawn()
        try:
            eventually(self._is_ready, "the stack is ready", seconds)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}; it said:\n{self.log}") from None
        _ = self.state
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "it ended"
        return (self.data_dir / "stack.json").exists()

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 30.0) -> int:
        """Send the signal and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended(seconds)

    def ended(self, seconds: float = START_LIMIT) -> int:
        """Wait for its end, which may be that of its start; returns the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_millstream(*arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
    """One command of the command line, to its end."""
    return subprocess.run(
        [*MILLSTREAM, *arguments], capture_output=True, text=True, timeout=seconds, cwd=ROOT
    )


def lives(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # It has just gone, where there is a /proc.
        return not Path("/proc/self").exists()
    return status.rsplit(")", 1)[1].split()[0] != "Z"
