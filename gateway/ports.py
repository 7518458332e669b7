"""The ports of the pure part: what sessions and the router ask of NATS, and give to clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


Forward = Callable[[bytes], None]
"""Takes a message ready for the client."""


class Outlet(Protocol):
    """What a session gives the client; nothing here waits."""

    @property
    def forward(self) -> Forward | None:
        """Takes the next token instead of `delta`, where its message is ready.

        None for a client that gets other messages.
        """

    def started(self, worker: str) -> None:
        """A worker took the request; told once."""

    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None:
        """The next tokens of one choice; `ends` are where their texts end, where it is known."""

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        """The next items of a function: serialized response messages, from item `index` on."""

    def finished(self, summary: Summary) -> None:
        """The answer is complete; nothing follows."""

    def failed(self, error: MillstreamError) -> None:
        """The request failed for good; nothing follows."""


class TextOnly:
    """The part of an outlet that one for generations never needs."""

    __slots__ = ()

    forward: Forward | None = None

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        """Only the outlet of a function's call gets items."""
        raise TypeError(f"{type(self).__name__} got items from {index} on: it is for generations")


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


class Io(Protocol):
    """What the router asks of NATS; nothing here waits."""

    def publish(self, request: wire.Request, done: Callable[[int | MillstreamError], None]) -> None:
        """Queue an attempt and report its sequence or a refusal; no report without an answer."""

    def unqueue(self, request_id: str, attempt: int, urgency: int, sequence: int) -> None:
        """Delete an attempt from its stream, if the sequence still is that attempt."""

    def audit(
        self,
        request_id: str,
        attempt: int,
        urgency: int,
        sequence: int,
        done: Callable[[bool], None],
    ) -> None:
        """Report whether the attempt is in its stream; no report where there was no answer."""

    def tell(self, worker: str, frame: wire.Frame) -> None:
        """Send to a worker's control subject."""

    def echo(self, frame: wire.Echo) -> None:
        """Send to this gateway's own subject."""

    def ask_announcements(self) -> None:
        """Ask all workers who they are."""

    def now(self) -> float:
        """Monotonic seconds."""
