"""Which requests may be what kills workers: deaths are counted, and the innocent spared. Pure.

A worker that is lost is only suspected dead: a cut connection and a SIGKILL look the same. Its
death is sure once it has been lost for `DEATH_AFTER` or its name came back as another process; if
it returns before, what it ran is cleared. A request with two suspected deaths runs beside none that
has any (its worker sees to that, since only it knows of every gateway's requests); if a worker dies
then, the request is poison, once that death is sure.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.session import Session, State

POISON = 3
DEATH_AFTER = 2.0


class Suspects:
    """The requests of workers that may have died."""

    def __init__(self) -> None:
        self._fallen: dict[str, tuple[float, list[Session]]] = {}

    def fell(self, worker: str, session: Session, now: float) -> bool:
        """A worker that ran the request was lost.

        Returns:
            Whether the request must be held until the worker's fate is known.
        """
        session.suspects.append(worker)
        self._fallen.setdefault(worker, (now, []))[1].append(session)
        return len(session.suspects) >= POISON

    def returned(self, worker: str) -> list[Session]:
        """The worker lives: what it ran is not to blame. Returns what was held for its sake."""
        sessions = self._fallen.pop(worker, (0.0, []))[1]
        for session in sessions:
            if worker in session.suspects:
                session.suspects.remove(worker)
        return [session for session in sessions if session.state is State.HELD]

    def dead(self, worker: str) -> list[Session]:
        """The worker died for sure. Returns the requests that are poison."""
        sessions = self._fallen.pop(worker, (0.0, []))[1]
        return [session for session in sessions if session.state is State.HELD]

    def sure(self, lost: Callable[[str], bool], now: float) -> list[str]:
        """Workers that fell so long ago, and are still `lost`, that they are dead."""
        return [
            worker
            for worker, (since, _) in self._fallen.items()
            if now - since > DEATH_AFTER and lost(worker)
        ]
