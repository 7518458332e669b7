"""What a gateway knows of one worker, and what its history explains: pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared import wire

SILENCE_LEAST = 0.3
SILENCE_MOST = 2.0
SILENCE_FACTOR = 4.0
HUNG_LEAST = 0.4
HUNG_FACTOR = 4.0
WARM_STEPS = 32
WARM_UP = 10.0


@dataclass(slots=True)
class Worker:
    """One incarnation of a worker process.

    Attributes:
        id: Name and boot number.
        boot: The upper bits of its execs.
        name: What outlives a restart.
        model: The served name.
        state: What it says of itself.
        card: What it serves.
        reason: Why it failed.
        seen: When it was heard of last.
        beat: Its latest heartbeat.
        stepped: When its engine was last seen to step, or idle.
        busy: When it was last heard to have work in flight.
        lost: Since when it is lost, or None.
        lost_cause: disconnect, silent or hung.
        digest: The number of its latest digest.
        whole: Whether every digest of the round under way was heard.
        connection: The connection it has now, as disconnect events name it, or "".
    """

    id: str
    boot: int
    name: str
    model: str
    state: str
    card: wire.ModelCard | None
    reason: str
    seen: float
    beat: wire.Heartbeat | None = None
    stepped: float = 0.0
    busy: float = 0.0
    lost: float | None = None
    lost_cause: str = ""
    digest: int = 0
    whole: bool = False
    connection: str = ""
    longest_gap: list[float] = field(default_factory=lambda: [0.0, 0.0])
    longest_step: list[float] = field(default_factory=lambda: [0.0, 0.0])
    rotated: float = 0.0
    probed: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        return self.state == "ready" and self.lost is None

    @property
    def busy_now(self) -> bool:
        """Whether its engine has work, by its latest heartbeat."""
        return self.beat is not None and self.beat.running > 0

    def told(self, digest: wire.Digest) -> bool:
        """Take note of a digest; False for one that was overtaken by a later one."""
        if digest.seq < self.digest:
            return False
        if digest.seq == digest.began:
            self.whole = True
        elif digest.seq != self.digest + 1:
            self.whole = False
        self.digest = digest.seq
        return True

    def silence_limit(self) -> float:
        """Seconds of silence that its last minute does not explain."""
        usual = SILENCE_FACTOR * max(self.longest_gap)
        return min(SILENCE_MOST, max(SILENCE_LEAST, usual))

    def step_limit(self) -> float:
        """Seconds without a step that its last minute does not explain.

        An engine's first steps compile and allocate, and nothing is known of them yet.
        """
        usual = max(HUNG_LEAST, HUNG_FACTOR * max(self.longest_step))
        warm = self.beat is not None and self.beat.steps >= WARM_STEPS
        return usual if warm else max(usual, WARM_UP)
