"""How a process starts its event loop, and how it says that it is ready."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path


def say_ready(path: Path, text: str) -> None:
    """Write `text` to the ready file in one step, so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def calm_collector() -> None:
    """Call once a process is set up: what lives for good is not looked at by the collector again.

    By default it ran every 700 new objects, which are a handful of requests, and took an eighth of
    the time of a gateway that answers short ones. References free nearly everything; what is left
    in cycles waits a little longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
