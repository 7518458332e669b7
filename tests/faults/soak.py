"""Random faults for as long as wanted.

python -m tests.faults.soak --minutes 60 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.random_scenarios import run

BATCH = 20


def main() -> int:
    """Run batches of scenarios, each on a new cluster, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    until = time.monotonic() + options.minutes * 60
    seed, wrong = options.seed, 0
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as directory:
            found = asyncio.run(run(Path(directory), range(seed, seed + BATCH)))
        for number, what in found.items():
            print(f"seed {number}: {what}", flush=True)
        wrong += len(found)
        seed += BATCH
        print(f"{seed - options.seed} scenarios, {wrong} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
