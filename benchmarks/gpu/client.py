"""A load client, a process of its own: `users` at once over one connection; says JSON at the end.

    python -m benchmarks.gpu.client TARGET START FIRST USERS SHAPE

START is when to begin (`time.time`), FIRST the number of its first user, SHAPE a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.gpu.points import Shape
from millstream import Client


async def _user(client: Client, shape: Shape, user: int, ttft: list[float]) -> int:
    tokens = 0
    for number in range(shape.each):
        began = time.perf_counter()
        first = None
        answer = client.generate(
            token_ids=shape.ids(user, number),
            max_tokens=shape.answer, temperature=0.0, ignore_eos=True,
        )  # fmt: skip
        async for delta in answer:
            if first is None and delta.token_ids:
                first = time.perf_counter() - began
            tokens += len(delta.token_ids)
        ttft.append(first if first is not None else float("inf"))
    return tokens


async def _main(target: str, start: float, first: int, users: int, shape: Shape) -> None:
    ttft: list[float] = []
    async with Client(target) as client:
        await client.models()  # Connect before the clock runs.
        await asyncio.sleep(max(0.0, start - time.time()))
        began = time.time()
        counts = await asyncio.gather(
            *(_user(client, shape, first + place, ttft) for place in range(users))
        )
    print(json.dumps({"tokens": sum(counts), "began": began, "ended": time.time(), "ttft": ttft}))


if __name__ == "__main__":
    _target, _start, _first, _users, _shape = sys.argv[1:]
    asyncio.run(
        _main(_target, float(_start), int(_first), int(_users), Shape(**json.loads(_shape)))
    )
