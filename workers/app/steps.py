"""From a batch's generator in a thread to the event loop: a few steps ahead, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

AHEAD = 4
"""Steps that the thread may be ahead of the loop."""

Step = Sequence[Any]


class Steps:
    """One generator's steps.

    Args:
        post: Calls something on the loop soon, in order.
        take: Takes a step, on the loop.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], None], take: Callable[[Step], None]
    ) -> None:
        self._post = post
        self._take = take
        self._steps: deque[Step] = deque()
        self._put = 0  # Counted by the thread.
        self._taken = 0  # Counted by the loop.
        self._paused = False
        self._cancelled = False
        self._wake = threading.Event()

    # ---- in the thread --------------------------------------------------------------------------

    def put(self, step: Step) -> bool:
        """Hand a step over; waits while the loop, or a reader, is behind.

        Returns:
            Whether anybody wants more.
        """
        self._put += 1
        self._steps.append(step)
        self._post(self._drain)
        while self._blocked():
            self._wake.clear()
            if self._blocked():
                self._wake.wait()
        return not self._cancelled

    def _blocked(self) -> bool:
        return not self._cancelled and (self._paused or self._put - self._taken >= AHEAD)

    # ---- on the loop ----------------------------------------------------------------------------

    def pause(self, paused: bool) -> None:
        """A reader is behind, or none is any more."""
        self._paused = paused
        self._wake.set()

    def cancel(self) -> None:
        """Nobody wants more."""
        self._cancelled = True
        self._wake.set()

    def _drain(self) -> None:
        for _ in range(len(self._steps)):
            self._take(self._steps.popleft())
            self._taken += 1
        self._wake.set()
