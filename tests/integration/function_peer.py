"""A gateway in this process, and workers of functions and of a language model beside it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

from gateway.app import App
from tests.integration import http_peer
from tests.integration.function_app import app as functions
from tests.integration.http_peer import Beside, call, nats_and

FUNCTIONS = Beside(
    {
        "app": ["tests.integration.function_app:app"],
        "sim": ["--engine", "sim", "--served-name", "sim"],
    },
    functions.models.keys() | {"sim"},
)


def nats_and_functions(directory: Path) -> AbstractContextManager[str]:
    """A NATS server, a worker of the functions, and a sim worker."""
    return nats_and(FUNCTIONS, directory)


def gateway(nats_url: str, **settings: Any) -> AbstractAsyncContextManager[App]:
    """A gateway that serves HTTP and gRPC, once it sees all models."""
    return http_peer.gateway(nats_url, FUNCTIONS, **settings)


async def seen(app: App, what: str) -> int:
    """What the worker has seen: items yielded, calls that hold."""
    answer = await call(app, "GET", f"/v1/models/seen/predict?what={what}")
    result: int = answer.json["result"]
    return result
