"""Ports for processes that cannot be asked for theirs."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

UNGIVEN = range(20_000, 32_000)
"""Below what Linux gives to whoever asks for any port: between the looking and the using, none of
these goes to a connection of somebody else's."""

_chance = random.SystemRandom()  # Test processes beside this one must not look at the same.


def free_port() -> int:
    """A port that nobody uses now."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """As many ports that nobody uses now, no two of them the same."""
    with ExitStack() as stack:
        found: list[int] = []
        for port in _chance.sample(UNGIVEN, len(UNGIVEN)):
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"{len(found)} ports of {UNGIVEN} are free; {count} are needed")
