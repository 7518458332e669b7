"""One measurement: a load on a system, and what it cost each of the system's processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accounting import ROOT, cpu_seconds
from benchmarks.child import LoadClient, SystemFault
from benchmarks.loads import Load
from benchmarks.systems import System

START_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one repetition showed.

    Attributes:
        cpu_us: Microseconds of CPU a token, by role; "front" is the process facing the client.
        per_grpc: Tokens per gRPC message.
        per_nats: Tokens per message that the worker published (its claims, acks and heartbeats
            counted too), or None without NATS.
        tokens_per_second: Over the whole load.
        ttft_ms: Times to first token, sorted.
        late_ms: Per token, how much later than the engine's pace it came, sorted.
    """

    cpu_us: dict[str, float]
    per_grpc: float
    per_nats: float | None
    tokens_per_second: float
    ttft_ms: list[float]
    late_ms: list[float]


def measure(client: LoadClient, system: System, load: Load) -> Sample:
    """Put a load on a system.

    Raises:
        SystemFault: A call failed, or an answer is not what was due.
    """
    published = system.nats_messages()
    before = {role: cpu_seconds(pid) for role, pid in system.pids.items()}
    client.begin(system.order(load))
    spent = {role: cpu_seconds(pid) - before[role] for role, pid in system.pids.items()}
    published_after = system.nats_messages()
    outcome = client.outcome()
    cpu_us = {role: seconds / outcome.tokens * 1e6 for role, seconds in spent.items()}
    per_nats = None
    if published is not None and published_after is not None:
        per_nats = outcome.tokens / (published_after - published)
    return Sample(
        cpu_us={**cpu_us, "front": cpu_us[system.front]},
        per_grpc=outcome.tokens / outcome.messages,
        per_nats=per_nats,
        tokens_per_second=outcome.tokens / outcome.seconds,
        ttft_ms=sorted(outcome.ttft_ms),
        late_ms=sorted(outcome.late_ms),
    )


def quantile(values: list[float], share: float) -> float:
    """The value that so large a share of the sorted values is not above; NaN of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def engine_us() -> float:
    """Microseconds of CPU a token that the sim engine costs without the rest of the worker."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def start_seconds() -> float:
    """From the spawning of `millstream up --engine sim` to the first token of a waiting client.

    Raises:
        SystemFault: It does not start.
    """
    with tempfile.TemporaryDirectory() as scratch, LoadClient() as client:
        began = time.perf_counter()
        with Up(Path(scratch), 0) as stack:
            client.begin(stack.order(Load(1, 1, 1)))
            seconds = time.perf_counter() - began
        client.outcome()
    return seconds


class Up(System):
    """The stack as `millstream up` starts it."""

    name = "up"
    front = "up"

    def _start(self) -> None:
        entry = "from millstream.cli import main; main()"
        flags = ["up", "--engine", "sim", "--grpc-port", "0", "--nats-port", "0"]
        data = self.directory / "data"
        self._spawn("up", [sys.executable, "-c", entry, *flags, "--data-dir", str(data)])
        self._address = self._await_stack(data / "stack.json")

    def _await_stack(self, state: Path) -> str:
        deadline = time.monotonic() + START_LIMIT
        while not state.exists():
            if self._processes["up"].poll() is not None or time.monotonic() > deadline:
                raise SystemFault(f"`millstream up` did not start:\n{self._said('up')}")
            time.sleep(0.002)
        return str(json.loads(state.read_text())["target"])
