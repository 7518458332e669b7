"""Ports for processes that cannot be asked for theirs."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """A port that nobody uses now."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """As many ports that nobody uses now, no two of them the same."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
