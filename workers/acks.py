"""How a worker answers JetStream for a message, and what the subject of the answer tells of it."""

from __future__ import annotations

ACK = b"+ACK"
"""It is taken: forget it."""
TERM = b"+TERM"
"""Nobody needs it: forget it, and offer it to nobody."""
WORKING = b"+WPI"
"""Work in progress: wait longer for the answer."""
NAK = b"-NAK"
"""Offer it again, at once."""


def nak(delay: float) -> bytes:
    """Give a message back, not to be offered again before `delay` seconds."""
    return NAK + f' {{"delay": {int(delay * 1e9)}}}'.encode()


def deliveries(token: str) -> int:
    """How often a message was delivered, from its ack subject, of which there are two forms.

    Raises:
        ValueError: It is none.
    """
    parts = token.split(".")
    if len(parts) < 9:
        raise ValueError(f"{token[:200]!r} is no ack subject")
    return int(parts[4 if len(parts) < 11 else 6])
