"""Instructions a call of each hot function and load, counted by valgrind; they repeat to 1%."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from benchmarks.accounting import ROOT
from benchmarks.hot import FUNCTIONS

CALLS = 30_000
LOAD_CALLS = {
    "gateway.request": 512, "gateway.burst": 1024, "gateway.token": 6400,
    "worker.request": 512, "worker.token": 12800, "worker.free": 19200,
}  # fmt: skip
FEW = 64
"""Calls of the run that is taken off: what is set up once, and tables that fill."""
VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def available() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def instructions() -> dict[str, float]:
    """Instructions a call, by function: a run with calls less a run without."""
    names = [*FUNCTIONS]
    jobs = [(names[0], 0), *((name, CALLS) for name in names)]
    for name, calls in LOAD_CALLS.items():
        jobs += [(name, FEW), (name, FEW + calls)]
    with ThreadPoolExecutor(2) as pool:
        base, *counts = pool.map(lambda job: _count(*job), jobs)
    functions, loads = counts[: len(names)], counts[len(names) :]
    found = {name: (count - base) / CALLS for name, count in zip(names, functions, strict=True)}
    for place, (name, calls) in enumerate(LOAD_CALLS.items()):
        few, many = loads[2 * place : 2 * place + 2]
        found[name] = (many - few) / calls
    return found


def _count(name: str, calls: int) -> int:
    done = subprocess.run(
        [*VALGRIND, sys.executable, "-m", "benchmarks.hot", name, str(calls)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind counted nothing:\n{done.stderr[-500:]}")
    return int(found[1])
