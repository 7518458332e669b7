"""Ends vLLM's processes when ours is killed: by themselves they live on and keep their memory.

Runs in vLLM's own processes, which import it by name. Its engine's process, where it is another
than its workers', ends with these.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from threading import Thread
from typing import Any

PATH = "workers.engines.vllm.ending.EndsWith"
METHOD = "end_with"
LOCAL = ("mp", "uni")
"""Where vLLM's workers are processes of this machine."""


def add(parallel: Any) -> bool:
    """Add it to vLLM's workers, if they are this machine's and extended by nobody else.

    Args:
        parallel: vLLM's `ParallelConfig`.

    Returns:
        Whether they have it.
    """
    if parallel.distributed_executor_backend in LOCAL and not parallel.worker_extension_cls:
        parallel.worker_extension_cls = PATH
    return bool(parallel.worker_extension_cls == PATH)


class EndsWith:
    """What is added to vLLM's class of workers (`worker_extension_cls`)."""

    def end_with(self, pid: int) -> None:
        """Kill this process when that one ends."""
        if sys.platform == "linux":
            gone = os.pidfd_open(pid)
            Thread(target=_follow, args=(gone,), name="end-with", daemon=True).start()


def _follow(gone: int) -> None:
    watch = select.poll()
    watch.register(gone, select.POLLIN)
    watch.poll()
    os.kill(os.getpid(), signal.SIGKILL)
