"""The run: all ways take turns."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks import vllm_overhead
from benchmarks.gpu.points import Point, Shape, table
from benchmarks.vllm_overhead.direct import Direct
from benchmarks.vllm_overhead.openai import OpenAi
from benchmarks.vllm_overhead.pipeline import Millstream
from benchmarks.vllm_overhead.processes import Way, send, spent
from workers import bundled

SETTLE = 2.0
"""Seconds after a wake: gateways hold requests back until they know that no worker died."""


async def _measure(ways: Sequence[Way], given: argparse.Namespace) -> dict[str, list[list[Point]]]:
    shapes = [
        Shape(users, max(given.each, 8 // users), given.prompt, given.answer, given.vocabulary)
        for users in given.users
    ]
    found: dict[str, list[list[Point]]] = {way.name: [[] for _ in shapes] for way in ways}
    for round_ in range(given.rounds + 1):
        for way in ways:
            send(way.pids(), signal.SIGCONT)
            await asyncio.sleep(SETTLE)
            for place, shape in enumerate(shapes):
                before = spent(way.every())
                point = await way.load(shape)
                after = spent(way.every())
                point.cpu = {name: after[name] - before.get(name, 0.0) for name in after}
                if round_:  # The first is for warming up.
                    found[way.name][place].append(point)
                    print(way.name, json.dumps(point.summary()), flush=True)
            send(way.pids(), signal.SIGSTOP)
    for way in ways:
        send(way.pids(), signal.SIGCONT)
    return found


def _median(points: Sequence[Point]) -> dict[str, object]:
    ordered = sorted(points, key=lambda point: point.tokens / point.seconds)
    middle = ordered[len(ordered) // 2].summary()
    for name in ("ttft_p50_ms", "ttft_p99_ms"):
        middle[name] = statistics.median(float(str(point.summary()[name])) for point in points)
    return middle


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=vllm_overhead.__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", default=str(bundled.PATH))
    parser.add_argument("--engine", type=json.loads, default={}, help="vLLM arguments as JSON")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--each", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    engine = {"model": given.model, "dtype": "float32", "max_model_len": 1024,
              "enforce_eager": True, "max_num_seqs": max(given.users)} | given.engine  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        ways: list[Way] = []
        for kind in (Direct, OpenAi):
            way = kind(folder, engine)
            stack.callback(way.close)
            ways.append(way)
            send(way.pids(), signal.SIGSTOP)
        ways.append(stack.enter_context(Millstream(folder, engine)))
        found = uvloop.run(_measure(ways, given))
    rows = [
        (way, _median(points[place]))
        for place in range(len(given.users))
        for way, points in found.items()
    ]
    print(table(f"{given.prompt} + {given.answer} tokens, {given.rounds} rounds", rows))
    if given.out:
        said = {"engine": engine, "rows": [{"way": way} | one for way, one in rows]}
        given.out.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
