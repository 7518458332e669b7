"""From functions to the worker: all that they gave in one turn of the loop, in one call."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from shared.errors import MillstreamError
from workers.engines.base import Output, Sink

CROWD = 64
"""Items of one call in one turn, after which its function lets others have the loop; in its first
turns fewer, so that nobody's first item waits for those that follow another's."""

CROWD_BYTES = 64 * 1024
"""The same in bytes; less than the flow-control window, which notes only what left the outbox."""

TURN_SECONDS = 0.005
"""The same in time."""


class Sender(Protocol):
    """A call with something to say."""

    @property
    def id(self) -> int:
        """The job's."""

    def taken(self, count: int, size: int) -> None:
        """So many of its items, and bytes, went to the worker."""


class Letter:
    """What one call has to say.

    Args:
        sender: The call.
    """

    __slots__ = ("dirty", "error", "finish", "items", "most", "mute", "sender", "size")

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.items: list[bytes] = []
        self.size = 0
        self.most = 1
        self.finish: str | None = None
        self.error: MillstreamError | None = None
        self.dirty = False
        self.mute = False


class Outbox:
    """Collects items and endings, and gives them to the sink once per turn of the loop.

    Args:
        sink: The worker's.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Letter] = []
        self._planned = False
        self._began = 0.0

    def add(self, letter: Letter, item: bytes) -> None:
        """Take an item."""
        if not letter.mute:
            letter.items.append(item)
            letter.size += len(item)
            self._mark(letter)

    def end(self, letter: Letter, error: MillstreamError | None) -> None:
        """Take the last word."""
        if not letter.mute:
            letter.error = error
            letter.finish = "stop" if error is None else None
            self._mark(letter)

    def mute(self, letter: Letter) -> None:
        """Say nothing of it any more."""
        letter.mute = True
        letter.items = []

    def crowded(self, letter: Letter) -> bool:
        """Whether its function should let others have the loop."""
        return letter.dirty and (
            len(letter.items) >= letter.most
            or letter.size >= CROWD_BYTES
            or time.monotonic() - self._began > TURN_SECONDS
        )

    def _mark(self, letter: Letter) -> None:
        if not letter.dirty:
            letter.dirty = True
            if not self._dirty:
                self._began = time.monotonic()
            self._dirty.append(letter)
            if not self._planned:
                self._planned = True
                self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._planned = False
        self.flush()

    def flush(self) -> None:
        """Give the sink what is here, without waiting for the end of the turn.

        An answer then leaves in one write with the claim, where that still waits for company.
        """
        dirty, self._dirty = self._dirty, []
        outputs = []
        sent = []
        for letter in dirty:
            letter.dirty = False
            if letter.mute:
                continue
            outputs.append(
                Output(
                    letter.sender.id, [], "", [],
                    items=letter.items, finish=letter.finish, error=letter.error,
                )
            )  # fmt: skip
            sent.append((letter, len(letter.items), letter.size))
            letter.items, letter.size = [], 0
            letter.most = min(2 * letter.most, CROWD)
        if outputs:
            self._sink(outputs)
        for letter, count, size in sent:
            if count:
                letter.sender.taken(count, size)
