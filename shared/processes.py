"""Child processes that die with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dies_with_parent(parent: int | None = None) -> Callable[[], None] | None:
    """What to run in a child between fork and exec so that the parent's death kills it.

    Linux only, else None. The kernel counts the death of the *thread* that forked, so start such
    children from the main thread.

    Args:
        parent: Its process id; None is the process that asks.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    expected = os.getpid() if parent is None else parent

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != expected:  # It died before the line above.
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange
