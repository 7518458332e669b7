"""Workers that only say that they live, so many in one process: what a large fleet costs a gateway.

python -m benchmarks.crowd NATS_URL COUNT READY_FILE
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.ready import say_ready

BEAT = 0.1
CARD = wire.ModelCard("crowd", "sim", 4096, 32000, "none", "crowd", ("resume",), 8)


async def live(url: str, count: int, ready: Path) -> None:
    """Announce, and beat as workers do, until the process is ended."""
    bus = Bus(BusOptions((url,), "crowd"))
    names = [f"crowd{number}-{number:08x}" for number in range(count)]
    asked = asyncio.Event()
    bus.listen(subjects.ASK, lambda *_: asked.set())
    await bus.start()
    asked.set()
    beats = 0
    while True:
        began = time.monotonic()
        for number, name in enumerate(names):
            if asked.is_set() or beats % 20 == 0:
                told = wire.Announce(name, number + 1, name, "ready", "crowd", CARD)
                bus.publish(subjects.announcement(name), wire.encode(told))
            beat = wire.Heartbeat(name, beats, "crowd", "ready", 0, 0, 8)
            bus.publish(subjects.heartbeat(name), wire.encode(beat))
        asked.clear()
        if beats == 1:
            say_ready(ready, "ready")
        beats += 1
        await asyncio.sleep(max(0.0, began + BEAT - time.monotonic()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
