"""What the local stack is told, and its rules that need no process to be tested."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

KILL_AFTER = 5.0
"""Seconds past its grace after which a child that was told to stop is killed."""


class StackError(RuntimeError):
    """The stack cannot start or stay up; the message says why and what to change."""


def default_data_dir() -> Path:
    """Where the platform keeps state, for `millstream up`."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "millstream"


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to run.

    Attributes:
        app: MODULE:ATTRIBUTE of an App whose functions are served instead of a model.
        engine: sim, torch or vllm.
        model: A checkpoint directory or hub id; None is the bundled model.
        served_name: The model's name in requests.
        workers: How many worker processes.
        engine_args: KEY=VALUE each.
        grpc_host: Where the gateway listens.
        grpc_port: 0 is any free port.
        http_port: Of the HTTP edge; 0 is any free port, None is no HTTP.
        nats: A server that runs already; None starts one.
        nats_port: Of the embedded one; 0 is any free port.
        data_dir: Holds JetStream data and `stack.json`.
        drain_grace: Seconds that open requests get at a stop.
        ready_seconds: How long the start may take.
        log_level: Of the gateway and the workers.
        log_format: console or json.
    """

    app: str | None = None
    engine: str = "torch"
    model: str | None = None
    served_name: str | None = None
    workers: int = 1
    engine_args: tuple[str, ...] = ()
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 50051
    http_port: int | None = None
    nats: str | None = None
    nats_port: int = 4222
    data_dir: Path = field(default_factory=default_data_dir)
    drain_grace: float = 30.0
    ready_seconds: float = 60.0
    log_level: str = "info"
    log_format: str = "console"


def http_is_installed() -> bool:
    """Whether the extra `http` is there."""
    return importlib.util.find_spec("fastapi") is not None


@dataclass(slots=True)
class RestartPolicy:
    """When a child that died is started again.

    Attributes:
        quick: A life shorter than this many seconds counts as a quick death.
        most: Quick deaths in a row after which it is given up.
        quick_deaths: So many so far.
    """

    quick: float = 20.0
    most: int = 5
    quick_deaths: int = 0

    def after(self, lived: float) -> float | None:
        """Seconds to wait before the next start; None gives up."""
        self.quick_deaths = self.quick_deaths + 1 if lived < self.quick else 1
        if self.quick_deaths > self.most:
            return None
        return min(5.0, 0.1 * 3.0 ** (self.quick_deaths - 1))


def check_port(host: str, port: int, flag: str) -> None:
    """Find out whether a port is free.

    Raises:
        StackError: It is not; names the flag that chooses another.
    """
    if port == 0:
        return
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise StackError(f"cannot listen on {host}:{port} ({error.strerror})") from error
        raise StackError(
            f"port {port} is in use: choose another with {flag}, or {flag} 0 for any free one"
        ) from error
