"""Files that are read again when they change, without a task: whoever uses them asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Stamp = tuple[tuple[int, int, int], ...]


class Watch:
    """Notices that any of some files was replaced or written.

    Args:
        paths: The files.
        every: Seconds between two looks, at least.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(paths)
        self._every = every
        self._clock = clock
        self._due = clock() + every
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether they changed since this last said so; False for files that are away just now."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + self._every
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        return True

    def _stamp(self) -> Stamp | None:
        try:
            found = [os.stat(path) for path in self._paths]
        except OSError:
            return None
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found)
