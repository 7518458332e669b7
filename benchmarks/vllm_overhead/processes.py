"""What every way to the engine has: processes, and a load."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.gpu.points import Point, Shape

ROOT = Path(__file__).resolve().parents[2]


class Way(Protocol):
    """One way to the engine."""

    name: str

    def pids(self) -> list[int]:
        """Its processes' ids."""

    async def load(self, shape: Shape) -> Point:
        """Run a load."""


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and its descendants."""
    every = list(family(process.pid))
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in every[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def send(pids: Sequence[int], number: int) -> None:
    """Signal processes."""
    for pid in pids:
        os.kill(pid, number)
