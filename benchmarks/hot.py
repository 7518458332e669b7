"""What callgrind counts: hot pure functions, and whole requests inside a gateway or a worker.

python -m benchmarks.hot NAME CALLS
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import inside, inside_worker
from gateway.session import Session
from shared import wire
from shared.ready import loop_factory
from shared.wire.delta import encode_delta


class _Deaf:
    """Both ports of a session: hears everything and does nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*_arguments: object) -> None:
    pass


def _decode() -> Callable[[int], object]:
    data = wire.encode_chunk(0, 7 << 31, 300, [300], " 300", None, 0, None)
    return lambda _: wire.decode(data)


def _encode_chunk() -> Callable[[int], object]:
    return lambda index: wire.encode_chunk(0, 7 << 31, index, [index], " 300", None, 0, None)


def _encode_token() -> Callable[[int], object]:
    return lambda index: wire.encode_token(7 << 31, index, index, " 300")


def _session() -> Callable[[int], object]:
    request = wire.Request("id", 0, "gw", "r", "m", "p", None, None, wire.Sampling())
    deaf: Any = _Deaf()
    session = Session(request, deaf, deaf, now=0.0, deadline=None, queue_seconds=60.0)
    session.open(0.0)
    session.claimed(wire.Claim(0, 7, "w", 0), 0.0)
    session.began(wire.Begun(0, 7, b"", 0, ""), 0.0)
    return lambda index: session.chunk(wire.Chunk(0, 7, index, (index,), " 300"), 0.0)


def _delta() -> Callable[[int], object]:
    return lambda index: encode_delta(index, (index,), " 300", 0, 0)


FUNCTIONS = {
    "wire.decode": _decode,
    "wire.encode_chunk": _encode_chunk,
    "wire.encode_token": _encode_token,
    "session.chunk": _session,
    "wire.encode_delta": _delta,
}
LOADS = {**inside.LOADS, **inside_worker.LOADS}


def main() -> int:
    """Call one function so often."""
    name, calls = sys.argv[1], int(sys.argv[2])
    if name in LOADS:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(LOADS[name](calls))
        return 0
    made = {key: make() for key, make in FUNCTIONS.items()}  # All, so that runs differ in calls.
    call = made[name]
    for index in range(calls):
        call(index)
    return 0


if __name__ == "__main__":
    sys.exit(main())
