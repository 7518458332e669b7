"""The same functions here and in BlazeRPC, called by turns; a table for `docs/apps.md`.

    python -m benchmarks.apps [--repetitions 5] [--write]

Here a call crosses a gateway, a broker and a worker; in BlazeRPC it never leaves the process. A
function is at-most-once here unless it is declared idempotent: then its worker begins a call
without waiting for the gateway's word. BlazeRPC batches unless told not to.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accounting
from benchmarks.accounting import ROOT, cpu_seconds
from benchmarks.app_client import CallClient
from benchmarks.app_rows import Sample, Samples, markdown, rows_of
from benchmarks.app_systems import STREAMS, BlazeBatching, BlazeFunctions, Functions
from benchmarks.loads import Load
from benchmarks.report import write_between_markers
from benchmarks.systems import BLAZERPC

RESULT = ROOT / "benchmarks" / "results" / "apps.json"
PAGE = ROOT / "docs" / "apps.md"
System = Functions | BlazeFunctions


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load.

    Attributes:
        key: In rows.
        function: What is called.
        load: How.
        quick: The same in a moment: to warm up, and for a smoke test.
    """

    key: str
    function: str
    load: Load
    quick: Load


SCENARIOS = (
    Scenario("stream1", "words", Load(1, 24, 256, waves=True), Load(1, 2, 256, waves=True)),
    Scenario("stream16", "words", Load(16, 80, 256, waves=True), Load(16, 16, 256, waves=True)),
    Scenario("stream64", "words", Load(64, 192, 256, waves=True), Load(64, 64, 256, waves=True)),
    Scenario("burst16", "burst", Load(16, 80, 256, waves=True), Load(16, 16, 256, waves=True)),
    Scenario("lone", "echo", Load(1, 300, 1), Load(1, 20, 1)),
    Scenario("flight", "echo", Load(16, 2000, 1), Load(16, 64, 1)),
    Scenario("nap", "nap", Load(8, 8, 1, waves=True), Load(1, 1, 1, waves=True)),
)


def measure(client: CallClient, system: System, function: str, load: Load) -> Sample:
    """Put a load on a system.

    Raises:
        SystemFault: A call failed, or an answer is not what was due.
    """
    call = system.call(function, load)
    before = {role: cpu_seconds(pid) for role, pid in system.pids.items()}
    client.begin(call)
    spent = {role: cpu_seconds(pid) - before[role] for role, pid in system.pids.items()}
    outcome = client.outcome()
    cpu = {role: seconds / outcome.messages * 1e6 for role, seconds in spent.items()}
    return Sample({**cpu, "servers": sum(cpu.values())}, outcome)


def run(scratch: Path, repetitions: int, quick: bool, chosen: set[str]) -> Samples:
    """Measure everything, the systems by turns."""
    samples: Samples = {}
    with ExitStack() as stack:
        client = stack.enter_context(CallClient())
        ours = stack.enter_context(Functions(scratch / "millstream", 0.0))
        blaze = stack.enter_context(BlazeFunctions(scratch / "blazerpc", 0.0))
        batching = stack.enter_context(BlazeBatching(scratch / "batching", 0.0))
        for scenario in SCENARIOS:
            if chosen and scenario.key not in chosen:
                continue
            sides = _sides(scenario, ours, blaze, batching)
            for system, function in sides.values():
                measure(client, system, function, scenario.quick)
            for _ in range(repetitions):
                for column, (system, function) in sides.items():
                    load = scenario.quick if quick else scenario.load
                    sample = measure(client, system, function, load)
                    samples.setdefault((scenario.key, column), []).append(sample)
    return samples


def _sides(
    scenario: Scenario, ours: Functions, blaze: BlazeFunctions, batching: BlazeFunctions
) -> dict[str, tuple[System, str]]:
    """Which columns a scenario has; BlazeRPC does not batch streams."""
    name = scenario.function
    sides: dict[str, tuple[System, str]] = {"blazerpc": (blaze, name)}
    if name == "nap":
        sides["once"] = (ours, name)
    else:
        sides |= {"once": (ours, f"{name}-once"), "idempotent": (ours, name)}
    if name not in STREAMS:
        sides["batching"] = (batching, name)
    return sides


def main() -> int:
    """Measure, print, save; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apps", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="rounds")
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test")
    parser.add_argument("--only", action="append", default=[], help="a scenario, several times")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/apps.md")
    options = parser.parse_args()
    repetitions = 1 if options.quick else options.repetitions
    with tempfile.TemporaryDirectory(prefix="millstream-apps-") as scratch:
        samples = run(Path(scratch), repetitions, options.quick, set(options.only))
    result = {
        "command": "python -m benchmarks.apps",
        "date": accounting.now(),
        "commit": accounting.commit(),
        "hardware": accounting.hardware(),
        "versions": {**accounting.versions(), "blazerpc": BLAZERPC},
        "repetitions": repetitions,
        "rows": rows_of(samples),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    print(text)
    if options.write and not write_between_markers(PAGE, text):
        print(f"{PAGE} has no markers for it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
