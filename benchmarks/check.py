"""`make bench-check`: fails where a token costs 15% more than it did when it was recorded.

Two kinds of cost, neither of which depends much on the machine: CPU a token as a multiple of what
bare grpclib spends on the same load in the same run, the median of pairs that take turns, and
instructions a call of the hot functions (callgrind, where valgrind is installed).

    python -m benchmarks.check [--counts] [--record]

With `--counts` only the instructions are looked at, which a shared machine repeats too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import accounting, callgrind
from benchmarks.accounting import ROOT
from benchmarks.child import LoadClient
from benchmarks.loads import Load
from benchmarks.measure import measure
from benchmarks.systems import BareGrpclib, Millstream

RECORDED = ROOT / "benchmarks" / "results" / "recorded.json"
ALLOWED = 1.15
LOADS = {
    0.0: {"free": (Load(64, 64, 3000), 5), "request": (Load(16, 1600, 1), 5)},
    20.0: {"paced": (Load(64, 64, 150, pace_ms=20), 3)},
}
"""By the engine's step: the loads, and how many pairs of each; shorter ones differ by a third."""

Costs = dict[str, float]


def ratios() -> Costs:
    """CPU of each of our processes over that of bare grpclib, by load and process."""
    found: Costs = {}
    with tempfile.TemporaryDirectory(prefix="millstream-check-") as scratch, LoadClient() as client:
        for step, loads in LOADS.items():
            with ExitStack() as stack:
                place = Path(scratch) / f"{step:g}"
                ours = stack.enter_context(Millstream(place / "millstream", step))
                bare = stack.enter_context(BareGrpclib(place / "grpclib", step))
                for name, (load, pairs) in loads.items():
                    found |= _pairs(client, ours, bare, name, load, pairs)
    return found


def _pairs(
    client: LoadClient, ours: Millstream, bare: BareGrpclib, name: str, load: Load, pairs: int
) -> Costs:
    seen: dict[str, list[float]] = {role: [] for role in ours.pids}
    for turn in range(pairs + 1):
        mine, theirs = measure(client, ours, load), measure(client, bare, load)
        for role, values in seen.items():
            if turn:  # The first pair warms both up.
                values.append(mine.cpu_us[role] / theirs.cpu_us["front"])
    return {f"{name} {role}": statistics.median(values) for role, values in seen.items()}


def worse(costs: Costs, recorded: Costs) -> list[str]:
    """Say what costs more than is allowed, a line for each."""
    return [
        f"{name}: {cost:.4g}, recorded {recorded[name]:.4g}: {cost / recorded[name] - 1:+.0%}"
        for name, cost in costs.items()
        if name in recorded and cost > recorded[name] * ALLOWED
    ]


def main() -> int:
    """Measure and compare, or record; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check")
    parser.add_argument("--record", action="store_true", help="take today's costs for the record")
    parser.add_argument("--counts", action="store_true", help="instructions only, as in CI")
    options = parser.parse_args()
    if options.counts and not callgrind.available():
        parser.error("valgrind is not installed")
    found = {} if options.counts else {"ratio to bare grpclib": ratios()}
    if callgrind.available():
        found["instructions a call"] = callgrind.instructions()
    else:
        print("valgrind is not installed: no instructions are counted")
    if options.record:
        kept = json.loads(RECORDED.read_text())["costs"] if RECORDED.exists() else {}
        record = {
            "commit": accounting.commit(), "date": accounting.now()[:10], "costs": kept | found,
        }  # fmt: skip
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        RECORDED.write_text(json.dumps(record, indent=1) + "\n")
    known: dict[str, Costs] = json.loads(RECORDED.read_text())["costs"]
    failures = []
    for kind, costs in found.items():
        print(f"{kind}:")
        for name, cost in costs.items():
            before = known.get(kind, {}).get(name)
            print(f"  {name:<20} {cost:10.4g}  recorded {before or float('nan'):10.4g}")
        failures += worse(costs, known.get(kind, {}))
    for failure in failures:
        print(f"costs more: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
