"""What a token costs as streams, workers and answers grow; draws `docs/scaling.svg`.

    python -m benchmarks.scale [--write]

Streams: so many open ones share 1,600 tokens a second, 5,000 of them 6,250. Workers: 64 paced
streams beside so many workers that only beat; what the beats cost the gateway without any stream is
measured before and taken off. Answers: 64 free-running streams. Then one process against two that
share the port, and 5,000 open streams of which 50 are served tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from benchmarks import accounting
from benchmarks.accounting import ROOT, cpu_seconds
from benchmarks.child import LoadClient
from benchmarks.http2 import Answer, Http2Client
from benchmarks.loads import Load
from benchmarks.measure import Sample, measure, quantile
from benchmarks.svg.panels import Panel, svg
from benchmarks.systems import PATH, Millstream
from millstream.v1 import inference_pb2 as pb

STREAMS = (10, 50, 200, 1000, 5000)
WORKERS = (1, 10, 50, 200)
LENGTHS = (16, 128, 1024, 4096, 16384)
RATE = 1600
SLOWEST = 800.0
"""Milliseconds of a step; a worker whose engine takes more than a second holds it for stuck."""
OPEN, ACTIVE = 5000, 50
PICTURE = ROOT / "docs" / "scaling.svg"
RESULT = ROOT / "benchmarks" / "results" / "scale.json"
Points = list[tuple[float, float]]


class Wide(Millstream):
    """With room for many streams."""

    gateway_flags: ClassVar[tuple[str, ...]] = ("--max-queue", "20000", "--no-refuse-late")
    max_batch: ClassVar[int] = 8192

    def crowd(self, count: int) -> None:
        """Add workers that only beat."""
        command = [sys.executable, "-m", "benchmarks.crowd", self._nats.url, str(count)]
        self._await("crowd", self._spawn("crowd", [*command, "READY_FILE"]))

    def idle_worker(self) -> None:
        """Add a worker whose model, `idle`, says nothing."""
        flags = ("--name", "idle", "--engine", "sim", "--served-name", "idle")
        args = ("max_batch=8192", "step_ms=200", "prefill_ms=100000000")
        self._await("idle", self._python("idle", "workers", *flags, *_engine(args)))


def _engine(arguments: tuple[str, ...]) -> list[str]:
    return [part for argument in arguments for part in ("--engine-arg", argument)]


class Shared(Wide):
    """Two gateway processes on one port; each is a role of its own, beside their parent's."""

    gateway_flags: ClassVar[tuple[str, ...]] = (*Wide.gateway_flags, "--processes", "2")

    def _start(self) -> None:
        super()._start()
        parent = self.pids["gateway"]
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        self.pids |= {f"gateway {child}": int(child) for child in children}


def cost(client: LoadClient, system: Millstream, load: Load, times: int = 3) -> Sample:
    """The median of some runs by the gateway's cost, after one to warm up."""
    runs = [measure(client, system, load) for _ in range(times + 1)][1:]
    return sorted(runs, key=lambda run: run.cpu_us["gateway"])[times // 2]


def streams(scratch: Path, client: LoadClient) -> dict[str, Points]:
    """Gateway and worker, microseconds a token, by open streams."""
    found: dict[str, Points] = {"gateway": [], "worker": []}
    for count in STREAMS:
        step = min(SLOWEST, count / RATE * 1e3)
        tokens = max(16, RATE * 4 // count)
        with Wide(scratch / f"streams-{count}", step) as system:
            # The cost of long answers less that of short ones: requests cost the same in both.
            short, long = (
                cost(client, system, _open(count, length, step), times=1)
                for length in (tokens // 4, tokens)
            )
        for role, points in found.items():
            more = long.cpu_us[role] * tokens - short.cpu_us[role] * (tokens // 4)
            points.append((count, more / (tokens - tokens // 4)))
    return found


def _open(count: int, tokens: int, step: float) -> Load:
    return Load(count, count, tokens, connections=8, pace_ms=step, ramp_ms=50)


def workers(scratch: Path, client: LoadClient) -> dict[str, Points]:
    """Gateway, microseconds a token, by workers that live."""
    load = Load(64, 64, 150, pace_ms=20)
    found: dict[str, Points] = {"gateway": [], "less its beats": []}
    for count in WORKERS:
        with Wide(scratch / f"workers-{count}", load.pace_ms) as system:
            if count > 1:
                system.crowd(count - 1)
            pid = system.pids["gateway"]
            before, began = cpu_seconds(pid), time.monotonic()
            time.sleep(3.0)
            idle = (cpu_seconds(pid) - before) / (time.monotonic() - began)
            sample = cost(client, system, load)
            cpu = sample.cpu_us["gateway"]
            found["gateway"].append((count, cpu))
            found["less its beats"].append((count, cpu - idle * 1e6 / sample.tokens_per_second))
    return found


def lengths(scratch: Path, client: LoadClient) -> dict[str, Points]:
    """Gateway and worker, microseconds a token, by tokens of an answer."""
    found: dict[str, Points] = {"gateway": [], "worker": []}
    with Wide(scratch / "lengths", 0.0) as system:
        for tokens in LENGTHS:
            requests = max(64, 65536 // tokens)
            sample = cost(client, system, Load(64, requests, tokens))
            for role, points in found.items():
                points.append((tokens, sample.cpu_us[role]))
    return found


class Holder(Http2Client):
    """Notes when every call has had its first message.

    Attributes:
        all_begun: Set from then on.
    """

    def __init__(self, path: str, on_end: Callable[[Answer], None]) -> None:
        super().__init__(path, on_end)
        self.all_begun = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Take frames, and look."""
        super().data_received(data)
        if self.answers and all(answer.frames for answer in self.answers.values()):
            self.all_begun.set()


async def hold(system: Wide, count: int) -> list[Http2Client]:
    """Open streams that stay; returns once every one was taken by a worker."""
    host, port = system._address.rsplit(":", 1)
    request = pb.GenerateRequest(model="idle", prompt="p").SerializeToString()
    loop = asyncio.get_running_loop()
    clients: list[Http2Client] = []
    for _ in range(count // 500):
        _, client = await loop.create_connection(
            lambda: Holder(PATH, lambda _: None), host, int(port)
        )
        await client.ready
        client.call(request, 500)
        clients.append(client)
        async with asyncio.timeout(30.0):
            await client.all_begun.wait()
    return clients


def processes(scratch: Path, client: LoadClient) -> dict[str, float]:
    """Gateway, microseconds a token, of one process and of two, with 64 streams for each.

    What a process does every 20 ms anyway is then shared by as many tokens.
    """
    found = {}
    with (
        Wide(scratch / "one", 20.0) as one,
        Shared(scratch / "two", 20.0) as two,
    ):
        for count, system in ((1, one), (2, two)):
            load = Load(64 * count, 64 * count, 250, connections=16 * count, pace_ms=20)
            runs = [measure(client, system, load) for _ in range(4)][1:]
            spent = [
                sum(us for role, us in run.cpu_us.items() if role.startswith("gateway"))
                for run in runs
            ]
            found[f"gateway_us_{count}_processes"] = statistics.median(spent)
    return found


def idle_streams(scratch: Path, client: LoadClient) -> dict[str, float]:
    """The gateway's memory with 5,000 open streams, and how the active ones fare."""
    with Wide(scratch / "open", 20.0) as system:
        system.idle_worker()
        return asyncio.run(_beside(system, client))


async def _beside(system: Wide, client: LoadClient) -> dict[str, float]:
    load = Load(ACTIVE, ACTIVE, 150, pace_ms=20)
    alone = await asyncio.to_thread(cost, client, system, load)
    held = await hold(system, OPEN - ACTIVE)
    beside = await asyncio.to_thread(cost, client, system, load)
    resident = accounting.resident_mb(system.pids["gateway"])
    for one in held:
        one.close()
    return {
        "resident_mb": resident,
        "open": OPEN,
        "gateway_us_alone": alone.cpu_us["gateway"],
        "gateway_us_beside": beside.cpu_us["gateway"],
        "tokens_per_second_alone": alone.tokens_per_second,
        "tokens_per_second_beside": beside.tokens_per_second,
        "late_p50_ms_alone": statistics.median(alone.late_ms),
        "late_p50_ms_beside": statistics.median(beside.late_ms),
        "late_p99_ms_alone": quantile(alone.late_ms, 0.99),
        "late_p99_ms_beside": quantile(beside.late_ms, 0.99),
    }


def main() -> int:
    """Measure, save, draw; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the picture into docs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millstream-scale-") as name, LoadClient() as client:
        scratch = Path(name)
        idle = idle_streams(scratch, client) | processes(scratch, client)
        print(json.dumps(idle, indent=1))
        found = {
            "open streams": streams(scratch, client),
            "workers": workers(scratch, client),
            "tokens of an answer": lengths(scratch, client),
        }
    panels = [Panel("CPU us a token", across, lines) for across, lines in found.items()]
    result = {
        "date": accounting.now(), "commit": accounting.commit(),
        "hardware": accounting.hardware(), "open": idle, "us_a_token": found,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if options.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        PICTURE.write_text(svg(panels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
