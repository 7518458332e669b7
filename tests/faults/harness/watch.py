"""What a cluster's workers say of themselves, and what waits in the streams."""

from __future__ import annotations

import asyncio
import time

from nats.errors import Error as NatsError

from shared import subjects, wire
from shared.bus import Bus, BusOptions

QUIET_LIMIT = 15.0
ANSWER_LIMIT = 1.0
"""Seconds of waiting for one answer: a request whose connection went gets none."""
AGAIN = 0.1


class Watch:
    """Listens to heartbeats.

    Attributes:
        beats: The latest of each worker.
        beat_times: When they came, monotonic.
    """

    def __init__(self) -> None:
        self.beats: dict[str, wire.Heartbeat] = {}
        self.beat_times: dict[str, float] = {}
        self._bus: Bus | None = None

    async def watch(self, urls: str) -> None:
        """Begin."""
        self._bus = Bus(BusOptions(tuple(urls.split(",")), "watcher"))
        self._bus.listen(subjects.HEARTBEATS, self._on_beat)
        await self._bus.start()

    def _on_beat(self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        beat = wire.decode(data)
        assert isinstance(beat, wire.Heartbeat)
        self.beats[beat.worker] = beat
        self.beat_times[beat.worker] = time.monotonic()

    @property
    def running(self) -> int:
        """What live workers run, by their latest heartbeats."""
        horizon = time.monotonic() - 1.0
        return sum(
            beat.running for name, beat in self.beats.items() if self.beat_times[name] > horizon
        )

    def idle(self, since: float) -> bool:
        """Whether every worker has said after that moment (monotonic) that it runs nothing."""
        return not any(beat.running for beat in self.beats.values()) and all(
            moment > since for moment in self.beat_times.values()
        )

    def done(self, tokens: int) -> bool:
        """Whether the workers have published more than so many tokens, and run nothing.

        Without the count, a heartbeat from before the request would say so too; and a worker whose
        loop is busy says nothing for a while, which is no sign of rest.
        """
        beats = self.beats.values()
        return sum(beat.tokens for beat in beats) > tokens and not any(
            beat.running for beat in beats
        )

    async def queued(self) -> int:
        """Messages in the streams, asked until there is an answer.

        A server that was just hurt may not have this connection back yet, nor its streams.
        """
        async with asyncio.timeout(QUIET_LIMIT):
            while True:
                try:
                    return await self._count_queued()
                except NatsError:
                    await asyncio.sleep(AGAIN)

    async def _count_queued(self) -> int:
        assert self._bus is not None
        jetstream = self._bus.client.jetstream(timeout=ANSWER_LIMIT)
        total = 0
        for stream in (subjects.STREAM, subjects.RESUME_STREAM):
            total += (await jetstream.stream_info(stream)).state.messages
        return total

    async def quiet(self, seconds: float = QUIET_LIMIT) -> None:
        """Wait until nothing runs and nothing is queued."""
        deadline = time.monotonic() + seconds
        while True:
            left = (self.running, await self.queued())
            if left == (0, 0):
                return
            assert time.monotonic() < deadline, f"left behind: {left} running and queued"
            await asyncio.sleep(AGAIN)

    async def unwatch(self) -> None:
        """End."""
        if self._bus is not None:
            await self._bus.close()
