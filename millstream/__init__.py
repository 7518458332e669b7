"""Millstream: streaming model serving over NATS.

    from millstream import Client

Names are loaded when first used, so that a client never imports an engine or NATS.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.client import Client, Delta, Finished, Generation, Started
    from millstream.sync import SyncClient

__all__ = ["Client", "Delta", "Finished", "Generation", "Started", "SyncClient"]

_HOME = {
    "Client": "millstream.client",
    "Delta": "millstream.client",
    "Finished": "millstream.client",
    "Generation": "millstream.client",
    "Started": "millstream.client",
    "SyncClient": "millstream.sync",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
