"""What the sim engine costs by itself: 64 endless jobs and a sink that drops what it gets.

The worker's cost without its engine is what publishing costs; this is the engine's share.

    python -m benchmarks.engine
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import uvloop

from shared.wire import Sampling
from workers.engines.base import Job, Output
from workers.engines.sim import SimEngine, SimOptions

JOBS = 64


async def cost(tokens: int) -> float:
    """CPU seconds a token."""
    engine = SimEngine("bench", SimOptions(max_batch=JOBS))
    ended = 0
    done = asyncio.Event()

    def sink(outputs: Sequence[Output]) -> None:
        nonlocal ended
        ended += sum([output.finish is not None for output in outputs])
        if ended == JOBS:
            done.set()

    def died(error: Exception) -> None:
        raise error

    await engine.start(sink, died)
    for number in range(JOBS):
        engine.submit(Job(number, "p", None, None, Sampling(max_tokens=tokens)))
    began = time.process_time()
    await done.wait()
    spent = time.process_time() - began
    await engine.close()
    return spent / (JOBS * tokens)


def main() -> int:
    """Print microseconds of CPU a token."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(cost(3000)) * 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
