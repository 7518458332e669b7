"""Run schedules: one by its seed, or many on all cores.

python -m tests.simulator.run 10000                    seeds 0 to 9999
python -m tests.simulator.run 1 --seed 42 -v           one, told
python -m tests.simulator.run 500 --kind once          of functions that must not run twice
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulator.checker import check
from tests.simulator.faults import plan
from tests.simulator.schedule import Schedule
from tests.simulator.worker import CARDS, Kind


def run_seed(seed: int, kind: Kind | None = None) -> list[str]:
    """Run one schedule, of the seed's kind of model or another; what was violated."""
    schedule = Schedule(seed, plan(seed, kind))
    schedule.run()
    return check(schedule)


def run_many(
    seeds: Iterable[int], processes: int, kind: Kind | None = None
) -> dict[int, list[str]]:
    """Run schedules on several cores; the violations by seed."""
    seeds, run = list(seeds), partial(run_seed, kind=kind)
    if processes <= 1:
        return {seed: found for seed in seeds if (found := run(seed))}
    with ProcessPoolExecutor(processes) as pool:
        parallel = pool.map(run, seeds, chunksize=50)
        return {seed: found for seed, found in zip(seeds, parallel, strict=True) if found}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(CARDS), default=None)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.verbose:
        print(plan(options.seed, options.kind))
    seeds = range(options.seed, options.seed + options.count)
    bad = run_many(seeds, options.processes, options.kind)
    for seed, found in bad.items():
        print(f"seed {seed}:", *found[:5], sep="\n  ")
    seconds = time.perf_counter() - started
    print(f"{options.count} schedules in {seconds:.1f} s, {len(bad)} with violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
