"""From a generator in a thread to the event loop: in batches, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from workers.app.outbox import CROWD_BYTES

_MOST = 256
"""Items under way from the thread to the worker; it begins with one and doubles, so that the first
item of a fast generator does not wait for those that follow."""


class Feed:
    """One generator's items.

    Args:
        post: Calls something on the loop soon, in order.
        add: Takes an item, on the loop.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], None], add: Callable[[bytes], None]
    ) -> None:
        self._post = post
        self._add = add
        self._items: deque[bytes] = deque()
        self._posted = False
        self._put = self._put_bytes = 0  # Counted by the thread.
        self._taken = self._taken_bytes = 0  # Counted by the loop.
        self._limit = 1
        self._open = True
        self._cancelled = False
        self._wake = threading.Event()

    # ---- in the thread --------------------------------------------------------------------------

    def put(self, item: bytes) -> None:
        """Hand an item over; waits while its reader is behind."""
        while self._blocked():
            self._wake.clear()
            if self._blocked():
                self._wake.wait()
        self._put += 1
        self._put_bytes += len(item)
        self._items.append(item)
        if not self._posted:
            self._posted = True
            self._post(self._drain)

    def _blocked(self) -> bool:
        if self._cancelled:
            return False
        return (
            not self._open
            or self._put - self._taken >= self._limit
            or self._put_bytes - self._taken_bytes >= CROWD_BYTES
        )

    # ---- on the loop ----------------------------------------------------------------------------

    def taken(self, count: int, size: int) -> None:
        """The worker has so many items more."""
        self._taken += count
        self._taken_bytes += size
        self._limit = min(2 * self._limit, _MOST)
        self._wake.set()

    def window(self, *, is_open: bool) -> None:
        """The reader is behind, or has caught up."""
        self._open = is_open
        self._wake.set()

    def cancel(self) -> None:
        """Nobody reads any more: the thread waits for nothing."""
        self._cancelled = True
        self._wake.set()

    def _drain(self) -> None:
        self._posted = False
        for _ in range(len(self._items)):
            self._add(self._items.popleft())
