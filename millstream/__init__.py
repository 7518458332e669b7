"""Millstream: streaming model serving over NATS.

    from millstream import App, Client

Names are loaded when first used, so that a client never imports an engine or NATS.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.client import Client, Delta, Finished, Function, Generation, Items, Started
    from millstream.instruments import CallLogging, CallMetrics, CallTraces
    from millstream.middleware import ClientMiddleware
    from millstream.sync import SyncClient
    from shared.values import Media
    from workers.app.app import App
    from workers.app.context import Context
    from workers.app.dependencies import Depends
    from workers.app.failures import AppError
    from workers.app.instruments import Logging, Metrics, Traces
    from workers.app.markers import END, End, Number, Tensor, TorchTensor
    from workers.app.media import Audio, Image, Video
    from workers.app.middleware import Middleware

__all__ = [
    "END",
    "App",
    "AppError",
    "Audio",
    "CallLogging",
    "CallMetrics",
    "CallTraces",
    "Client",
    "ClientMiddleware",
    "Context",
    "Delta",
    "Depends",
    "End",
    "Finished",
    "Function",
    "Generation",
    "Image",
    "Items",
    "Logging",
    "Media",
    "Metrics",
    "Middleware",
    "Number",
    "Started",
    "SyncClient",
    "Tensor",
    "TorchTensor",
    "Traces",
    "Video",
]

_HOME = {
    "END": "workers.app.markers",
    "App": "workers.app.app",
    "AppError": "workers.app.failures",
    "Audio": "workers.app.media",
    "CallLogging": "millstream.instruments",
    "CallMetrics": "millstream.instruments",
    "CallTraces": "millstream.instruments",
    "Client": "millstream.client",
    "ClientMiddleware": "millstream.middleware",
    "Context": "workers.app.context",
    "Delta": "millstream.client",
    "Depends": "workers.app.dependencies",
    "End": "workers.app.markers",
    "Finished": "millstream.client",
    "Function": "millstream.client",
    "Generation": "millstream.client",
    "Image": "workers.app.media",
    "Items": "millstream.client",
    "Logging": "workers.app.instruments",
    "Media": "shared.values",
    "Metrics": "workers.app.instruments",
    "Middleware": "workers.app.middleware",
    "Number": "workers.app.markers",
    "Started": "millstream.client",
    "SyncClient": "millstream.sync",
    "Tensor": "workers.app.markers",
    "TorchTensor": "workers.app.markers",
    "Traces": "workers.app.instruments",
    "Video": "workers.app.media",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
