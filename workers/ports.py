"""What the pure part of a worker asks of NATS and the engine."""

from __future__ import annotations

from typing import Protocol

from shared import wire
from workers.engines.base import Job


class Io(Protocol):
    """What the ledger asks of NATS and the engine; nothing here waits."""

    def say(self, subject: str, frame: bytes, /) -> object:
        """Publish on a request's reply subject; what it returns is of no interest."""

    def tell(self, gateway: str, frame: wire.Frame) -> None:
        """Publish on a gateway's own subject."""

    def ack(self, token: str, how: bytes) -> None:
        """Answer JetStream for a message: +ACK, -NAK, +WPI, +TERM."""

    def submit(self, job: Job) -> None:
        """Give the engine a job."""

    def abort(self, exec_: int) -> None:
        """Take it back."""

    def window(self, exec_: int, is_open: bool) -> None:
        """Tell the engine that a function may yield, or must wait."""

    def flush_later(self) -> None:
        """Call `Ledger.flush` soon: see `workers.speaker.COALESCE`."""

    def freed(self) -> None:
        """A slot is free."""

    def now(self) -> float:
        """Monotonic seconds."""
