"""How long a client waits when something dies: worst gap between two tokens of any stream.

    python -m benchmarks.failover [--runs 10] [--streams 16 64] [--plot docs/failover.svg]

Two workers of the sim engine at 10 ms a step, one gateway, a real nats-server. In every run all
streams flow, then one worker is killed (SIGKILL), stopped (SIGSTOP), or the broker is killed and
comes back after 0.3 s; every token is checked. Writes benchmarks/results/failover.json, and with
--plot every run as a dot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.svg import dots
from tests.faults.harness import Cluster, Event, Scenario, play, verify

RESULTS = Path(__file__).parent / "results" / "failover.json"
STEP_MS = 10
FAULT_AT = 0.7
TOKENS = 220

FAULTS: dict[str, tuple[Event, ...]] = {
    "none": (),
    "SIGKILL": (Event(FAULT_AT, "kill", "w0"),),
    "SIGSTOP": (Event(FAULT_AT, "freeze", "w0"),),
    "broker restart": (Event(FAULT_AT, "nats_kill"), Event(FAULT_AT + 0.3, "nats_start")),
}


async def measure(directory: Path, streams: int, runs: int) -> dict[str, list[float]]:
    """The worst gap of each run in milliseconds, by fault."""
    gaps: dict[str, list[float]] = {name: [] for name in FAULTS}
    async with Cluster(directory, workers=2) as cluster:
        for _ in range(runs):
            for name, events in FAULTS.items():
                seen = await play(Scenario(events, streams=streams, tokens=TOKENS), cluster)
                verify(seen)
                gaps[name].append(max(one.worst_gap for one in seen) * 1000)
                cluster.wake("w0")
                if name == "SIGKILL":
                    cluster.restart("w0")
                await cluster.all_ready()
                await cluster.quiet()
    return gaps


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| fault | streams | median of worst gaps | worst | above no fault |",
        "|---|---|---|---|---|",
    ]
    for streams, gaps in results.items():
        base = statistics.median(gaps["none"])
        for name, values in gaps.items():
            median = statistics.median(values)
            lines.append(
                f"| {name} | {streams} | {median:.0f} ms | {max(values):.0f} ms "
                f"| {median - base:+.0f} ms |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--streams", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    for streams in options.streams:
        with tempfile.TemporaryDirectory() as directory:
            results[str(streams)] = asyncio.run(measure(Path(directory), streams, options.runs))
    print(table(results))
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        + platform.python_version(),
        "step_ms": STEP_MS,
        "runs": options.runs,
        "worst_gap_ms": {
            streams: {name: [round(value, 1) for value in values] for name, values in gaps.items()}
            for streams, gaps in results.items()
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    if options.plot is not None:
        named = {f"{streams} streams": gaps for streams, gaps in results.items()}
        dots.write(options.plot, "worst gap between two tokens of any stream, ms", named)


if __name__ == "__main__":
    main()
