"""What every way to the engine has: processes, and a load."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.accounting import cpu_seconds
from benchmarks.gpu.points import Point, Shape

ROOT = Path(__file__).resolve().parents[2]
NOTICED = 0.1
"""CPU seconds of a process that is worth a name: helpers of multiprocessing have less."""


class Way(Protocol):
    """One way to the engine."""

    name: str

    def pids(self) -> list[int]:
        """Ids of the processes that are stopped while it is not its turn."""

    def every(self) -> list[int]:
        """Ids of all its processes."""

    async def load(self, shape: Shape) -> Point:
        """Run a load."""


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def spent(pids: Sequence[int]) -> dict[str, float]:
    """CPU seconds so far, by what the processes are."""
    found: dict[str, float] = {}
    for pid in pids:
        seconds = cpu_seconds(pid)
        if seconds > NOTICED:
            name = _called(pid)
            found[name] = found.get(name, 0.0) + seconds
    return found


def _called(pid: int) -> str:
    """What a process is: vLLM gives its own a title, `python -m` runs all others of Python."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode().split("\0")
    if words[0].startswith("VLLM::"):
        return words[0].removeprefix("VLLM::").split("_")[0]
    module = words[words.index("-m") + 1] if "-m" in words else words[0].rsplit("/", 1)[-1]
    return module.rsplit(".", 1)[-1]


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
