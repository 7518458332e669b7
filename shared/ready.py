"""How a process starts its event loop, and how it says that it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path


def say_ready(path: Path, text: str) -> None:
    """Write `text` to the ready file in one step, so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
