"""Adaptive batching against fixed size and window: Poisson arrivals on a recurrent network.

    python -m benchmarks.batching [--real] [--plot docs/batching.svg]

The network's cost by batch size is measured (seconds of CPU, one thread). The grid of all pairs of
size and window then runs in virtual time with that cost, as does the policy that serves, untuned:
the highest rate at which the 99th percentile meets the target, and that percentile at every load.
With --real the network itself runs behind the batch engine in this process, under three policies by
turns, and a lone call is compared with one that is not batched. Writes
benchmarks/results/batching.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.batching_real import Fixed, cost, served
from benchmarks.devices import Device, Outcome, adaptive, fixed, p99, poisson, sustained
from benchmarks.svg import lines
from workers.batching.microbatch import MOST, TARGET

RESULTS = Path(__file__).parent / "results" / "batching.json"
DEFAULT = (32, 0.01)
PAIRS = [
    (size, window)
    for size in (8, 16, 32, 64, MOST)
    for window in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)
]
COUNT = 6000
LOADS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
RATES = (100, 200, 400, 600, 800, 1000, 1200)
REAL_SECONDS, REAL_ROUNDS = 1.5, 3

Play = Callable[[float], Outcome]


def systems(device: Device, target: float) -> tuple[Play, dict[tuple[int, float], Play]]:
    """Ours and every pair, at a rate, in virtual time."""

    def ours(rate: float) -> Outcome:
        return adaptive(device, poisson(rate, COUNT, 1), most=MOST, target=target)

    def pair(size: int, window: float, rate: float) -> Outcome:
        return fixed(device, poisson(rate, COUNT, 1), size=size, window=window)

    return ours, {(size, window): partial(pair, size, window) for size, window in PAIRS}


def grid(device: Device, target: float) -> dict[str, Any]:
    """What each sustains at a target, in calls a second."""
    ours, pairs = systems(device, target)
    most = MOST / (device.base + MOST * device.slope)
    rates = {
        pair: sustained(lambda rate, play=play: play(rate).p99(), target, most)  # type: ignore[misc]
        for pair, play in pairs.items()
    }
    best = max(rates, key=lambda pair: rates[pair])
    return {
        "target_ms": 1000 * target,
        "ours": sustained(lambda rate: ours(rate).p99(), target, most),
        "default": rates[DEFAULT],
        "best": rates[best],
        "best_pair": [best[0], 1000 * best[1]],
    }


def by_load(device: Device, most: float, target: float) -> Iterator[dict[str, Any]]:
    """At each load: 99th percentiles in ms, and calls answered within the target, of all."""
    ours, pairs = systems(device, target)
    for load in LOADS:
        seen = {pair: play(load * most) for pair, play in pairs.items()}
        best = min(seen, key=lambda pair: seen[pair].p99())
        runs = {"ours": ours(load * most), "default": seen[DEFAULT], "best": seen[best]}
        yield {"load": load, "best_pair": [best[0], 1000 * best[1]]} | {
            name: {
                "p50": 1000 * statistics.median(run.seconds),
                "p99": 1000 * run.p99(),
                "within": sum(one <= target for one in run.seconds) / len(run.seconds),
            }
            for name, run in runs.items()
        }


async def lone(rounds: int = 200) -> dict[str, float]:
    """Median ms of a lone call, batched and not, by turns."""
    async with served("single") as single, served("batched") as batched:
        took: dict[str, list[float]] = {"unbatched": [], "batched": []}
        for _ in range(rounds):
            took["unbatched"].append(await single.lone())
            took["batched"].append(await batched.lone())
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in took.items()}
    return medians | {"ratio": medians["batched"] / medians["unbatched"]}


async def real(best: tuple[int, float]) -> list[dict[str, Any]]:
    """The network in real time, by rate: medians over rounds of p50 and p99 in ms."""
    async with (
        served("batched") as ours,
        served("batched", Fixed(*DEFAULT)) as default,
        served("batched", Fixed(*best)) as grid_best,
    ):
        rows = []
        for rate in RATES:
            seen: dict[str, list[Outcome]] = {"ours": [], "default": [], "best": []}
            for number in range(REAL_ROUNDS):
                arrivals = poisson(rate, int(rate * REAL_SECONDS), number)
                turns = [("ours", ours), ("default", default), ("best", grid_best)]
                for name, one in turns[number:] + turns[:number]:
                    seen[name].append(await one.play(arrivals))
            rows.append(
                {"rate": rate} | {
                    name: {
                        "p50": 1000 * statistics.median(
                            statistics.median(run.seconds) for run in runs
                        ),
                        "p99": 1000 * statistics.median(p99(run.seconds) for run in runs),
                    }
                    for name, runs in seen.items()
                }
            )  # fmt: skip
        return rows


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown tables."""
    text = [
        "| p99 target, ms | untuned | 32 items, 10 ms | ratio | best pair | its rate | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["grid"]:
        size, window = row["best_pair"]
        text.append(
            f"| {row['target_ms']:.0f} | {row['ours']:,.0f} | {row['default']:,.0f} | "
            f"{row['ours'] / max(1, row['default']):.2f} | {size} items, {window:g} ms | "
            f"{row['best']:,.0f} | {row['ours'] / row['best']:.2f} |"
        )
    text += [
        "",
        "| load | untuned p50, p99 | 32 items, 10 ms | best pair | which |",
        "|---|---|---|---|---|",
    ]
    for row in results["loads"]:
        size, window = row["best_pair"]
        cells = [f"{row[n]['p50']:.1f}, {row[n]['p99']:.1f}" for n in ("ours", "default", "best")]
        text.append(f"| {row['load']:.0%} | {' | '.join(cells)} | {size} items, {window:g} ms |")
    if "real" in results:
        text += [
            "",
            "| calls a second | untuned p50, p99 | 32 items, 10 ms | grid's best |",
            "|---|---|---|---|",
        ]
        for row in results["real"]:
            cells = [
                f"{row[n]['p50']:.0f}, {row[n]['p99']:.0f}" for n in ("ours", "default", "best")
            ]
            text.append(f"| {row['rate']:,} | {' | '.join(cells)} |")
        text += ["", f"lone call: {results['lone']}"]
    return "\n".join(text)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    device, points = cost()
    results: dict[str, Any] = {
        "device": {"base_ms": 1000 * device.base, "slope_ms": 1000 * device.slope},
        "points_ms": [[size, 1000 * seconds] for size, seconds in points],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "grid": [grid(device, target) for target in (TARGET / 2, TARGET, 2 * TARGET)],
    }
    row = results["grid"][1]
    best = (row["best_pair"][0], row["best_pair"][1] / 1000)
    results["loads"] = list(by_load(device, row["best"], TARGET))
    if given.real:
        results["lone"] = asyncio.run(lone())
        results["real"] = asyncio.run(real(best))
    print(json.dumps(results["device"]))
    print(tables(results))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if given.plot is not None:
        plot(given.plot, results)


def plot(path: Path, results: dict[str, Any]) -> None:
    """Draw the 99th percentiles by load."""
    most = results["grid"][1]["best"]
    names = {"ours": "untuned", "default": "32 items, 10 ms", "best": "best pair at each load"}
    title = "99th percentile of a call, ms, by calls a second (virtual time)"
    series = {
        said: [(row["load"] * most, row[name]["p99"]) for row in results["loads"]]
        for name, said in names.items()
    }
    lines.write(path, title, series, limit=1000 * TARGET)


if __name__ == "__main__":
    main()
