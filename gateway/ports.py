"""What a session asks of NATS and gives its client: the two sides `gateway.session` talks to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shared import wire
from shared.errors import MillstreamError

if TYPE_CHECKING:
    from gateway.session import Session


class Wire(Protocol):
    """What a session asks of the NATS side; nothing here waits."""

    def publish(self, session: Session, request: wire.Request) -> None:
        """Queue an attempt; the outcome comes back as `Session.published`."""

    def unqueue(self, session: Session, attempt: int, sequence: int) -> None:
        """Delete a queued attempt from the stream."""

    def audit(self, session: Session, attempt: int, sequence: int) -> None:
        """Look whether an attempt is still queued; the answer comes as `Session.audited`."""

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send a control message."""

    def cancel(self, worker: str, exec_: int) -> None:
        """End an exec: told again until it says that it ended."""

    def close_exec(self, worker: str, exec_: int) -> None:
        """The exec's last word has arrived: its worker may forget it."""

    def count(self, event: str) -> None:
        """Count what an operator wants to see: failover, repair, stray and others."""


class Outlet(Protocol):
    """What a session gives the client; nothing here waits."""

    def started(self, worker: str) -> None:
        """A worker took the request; told once."""

    def delta(
        self, index: int, ids: Sequence[int], text: str, choice: int, attempt: int, logprobs: Any
    ) -> None:
        """The next tokens of one choice."""

    def finished(self, summary: Summary) -> None:
        """The answer is complete; nothing follows."""

    def failed(self, error: MillstreamError) -> None:
        """The request failed for good; nothing follows."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the last message to the client says. Times in seconds since acceptance."""

    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    queue: float
    first_token: float
    total: float
    attempts: int
