"""What is played around a worker in `benchmarks.inside_worker`: time, an engine, its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.inside import CARD
from shared import wire
from workers.engines.base import Engine, Job, Observation, Sink

BOOT = 1 << 31


class Clock:
    """Time as a load lets it pass: stands in for the module `time` and for a loop's timers."""

    def __init__(self) -> None:
        self.call_soon = asyncio.get_running_loop().call_soon
        self._now = 1000.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """Seconds."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call it once so much time has passed."""
        self._timers.append((self._now + delay, callback))

    def advance(self, seconds: float) -> None:
        """Let time pass and call what is due."""
        self._now += seconds
        for timer in [timer for timer in self._timers if timer[0] <= self._now]:
            self._timers.remove(timer)
            timer[1]()


class DrivenEngine(Engine):
    """Keeps its jobs; who drives it calls the sink."""

    def __init__(self) -> None:
        self.card = CARD
        self.jobs: list[Job] = []
        self.sink: Sink = lambda _outputs: None

    async def start(self, sink: Sink, died: object) -> None:
        """Keep the sink."""
        self.sink = sink

    def submit(self, job: Job) -> None:
        """Keep the job."""
        self.jobs.append(job)

    def abort(self, job_id: int) -> None:
        """Refuse: no load ends a job early."""
        raise RuntimeError(f"job {job_id} was aborted")

    def observe(self) -> Observation:
        """Nothing waits."""
        return Observation()

    async def close(self) -> None:
        """Nothing was taken."""


class Stream(NamedTuple):
    """A request's id, and its exec as a number and as it stands in frames."""

    id: bytes
    number: int
    exec: bytes

    def of(self, template: bytes) -> bytes:
        """What of `ANY` would be this: to encode it for each would be a fifth of the cost."""
        return template.replace(ANY.id, self.id).replace(ANY.exec, self.exec)


ANY = Stream(b"0" * 26, (BOOT + 1) << 31, ((BOOT + 1) << 31).to_bytes(8))
"""Whose messages are templates for those of all others: both names have a fixed length."""


def each(streams: Sequence[Stream], template: bytes) -> bytes:
    """The message of every one, in order."""
    return b"".join([stream.of(template) for stream in streams])


def said(frame: wire.Frame) -> bytes:
    """A frame as a worker publishes it on the reply subject of `ANY`."""
    data = wire.encode(frame)
    return b"PUB ms.rep.gw.%b  %d\r\n%b\r\n" % (ANY.id, len(data), data)
