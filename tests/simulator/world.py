"""Virtual time: an event heap, and processes that may be killed, paused and woken."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

Event = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class World:
    """The clock of a schedule.

    Attributes:
        now: Seconds since the start; true time, which no process sees.
        random: Every chance comes from here.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self._heap: list[Event] = []
        self._count = 0

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call at a time."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call, arguments))

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call after a delay."""
        self.at(self.now + delay, call, *arguments)

    def run_until(self, time: float) -> None:
        """Let everything happen up to a time."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            self.now, _, call, arguments = heapq.heappop(heap)
            call(*arguments)
        self.now = time


class Process:
    """One incarnation of a process.

    Args:
        world: Whose time it lives in.
        name: Its id.

    Attributes:
        up: Whether it lives.
        paused: Whether it is stopped: what arrives waits, timers fire when it wakes.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.up = True
        self.paused = False
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._offset = world.random.uniform(0.0, 1e5)
        self._rate = world.random.uniform(0.998, 1.002)

    def now(self) -> float:
        """Its own monotonic clock, which begins anywhere and runs a little off."""
        return self._offset + self.world.now * self._rate

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """A timer of the process."""
        self.world.after(delay / self._rate, self.receive, call, *arguments)

    def receive(self, call: Callable[..., None], *arguments: Any) -> None:
        """Something reaches the process: now, at its waking, or never."""
        if not self.up:
            return
        if self.paused:
            self._waiting.append((call, arguments))
        else:
            call(*arguments)

    def kill(self) -> None:
        """SIGKILL."""
        self.up = False
        self._waiting.clear()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def wake(self) -> None:
        """SIGCONT: timers that are due come first, then what arrived, as an event loop has it."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for call, arguments in waiting:
            self.receive(call, *arguments)
