"""One attempt at one request on a worker."""

from __future__ import annotations

from enum import Enum, auto

from shared import subjects, wire
from workers.parts import PartsPublisher
from workers.publisher import Publisher


class State(Enum):
    """Where an exec is."""

    CLAIMING = auto()
    RUNNING = auto()
    ENDED = auto()


_NOTHING = Publisher(0, 0, ())
"""The record until it is known what is asked for: without a choice, nothing is ever said in it."""


class Execution:
    """What a worker knows of an exec.

    Attributes:
        exec: Its number.
        request_id: The request's ULID.
        attempt: Which attempt.
        gateway: Whose request it is.
        subject: Where it speaks.
        token: Where JetStream wants its ack.
        state: Where it is.
        claimed: When it was claimed first, moved on by stalls of this process.
        claim_sent: When it was claimed last: its deadline counts from then.
        claim_due: When it is claimed again.
        claims: How often it was claimed.
        deadline: When the engine must stop, or None.
        waiting: What to give the engine once the claim is granted, where that must be waited for.
        publisher: The record.
        begun: The `Begun` frame, kept as long as the record.
        reasons: Per choice, why it ended, or None.
        tokens: Completion tokens of the ended choices.
        deaths: Workers that died, or seem to have, while they ran the request.
        terminal: The last word, kept until its arrival is told.
        terminal_due: When it is said again.
        sent_at: When a chunk was sent last.
        dirty: Whether tokens wait to be sent together.
        open: Whether a function may yield: its window is not used up.
    """

    __slots__ = (
        "attempt", "begun", "claim_due", "claim_sent", "claimed", "claims", "deadline",
        "deaths", "dirty",
        "exec", "gateway", "open", "publisher", "reasons", "request_id", "sent_at", "state",
        "subject", "terminal", "terminal_due", "token", "tokens", "waiting",
    )  # fmt: skip

    def __init__(
        self, exec_: int, request_id: str, attempt: int, gateway: str, token: str, now: float
    ) -> None:
        self.exec = exec_
        self.request_id = request_id
        self.attempt = attempt
        self.gateway = gateway
        self.subject = subjects.reply(gateway, request_id)  # Once, not for every token.
        self.token = token
        self.state = State.CLAIMING
        self.claimed = self.claim_sent = self.claim_due = now
        self.claims = 0
        self.deadline: float | None = None
        self.deaths = 0
        self.waiting: wire.Request | None = None
        self.publisher: Publisher | PartsPublisher = _NOTHING
        self.begun: bytes | None = None
        self.reasons: list[str | None] = []
        self.tokens = 0
        self.terminal: bytes | None = None
        self.terminal_due = 0.0
        self.sent_at = 0.0
        self.dirty = False
        self.open = True

    @property
    def entry(self) -> wire.DigestEntry:
        """Its line in a digest."""
        return wire.DigestEntry(
            self.request_id, self.exec, self.publisher.totals, self.state is State.ENDED
        )
