"""When a worker asks which queue for how much: a pure policy over free slots and answers.

A worker never holds more than it can start now (late binding), so a request waits where any
worker can take it. Two modes:

- *Standing*: slots are free and every queue is empty. A pull waits at each queue; together they
  ask for no more than the free slots, so nothing that arrives has to be given back (with fewer
  slots than queues each gets one, and what arrives too many is).
- *Polling*: slots became free while work may wait. The queues are asked in order of urgency, each
  for all free slots, with `no_wait`; one that fills them wins, and one that does not is empty. Once
  in `1 / floor` rounds the least urgent queue is asked first, so that it never starves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from shared.subjects import CLASSES

EXPIRES = (0.25, 1.0, 1.0, 1.0)
POLL_LIMIT = 0.5
LATE = 0.5
RETRY_AFTER = 0.25
_SHARES = (0.15, 0.35, 0.35, 0.15)


@dataclass(slots=True)
class Pull:
    """One pull request.

    Attributes:
        number: Names it in its reply subject.
        urgency: Which queue.
        batch: Messages asked for.
        expires: Seconds it waits at the server; None is `no_wait`.
        left: Messages still to come.
        until: When it is over for sure, said or not.
    """

    number: int
    urgency: int
    batch: int
    expires: float | None
    left: int
    until: float


class Pulls:
    """The open pulls of a worker.

    Args:
        floor: The share of rounds in which the least urgent queue is asked first, in [0, 1).
    """

    def __init__(self, floor: float = 0.05) -> None:
        self._open: dict[int, Pull] = {}
        self._next = 0
        self._polling: int | None = None
        self._order: tuple[int, ...] = ()
        self._credit = 0.0
        self._floor = floor
        self._backlog = True
        self._not_before = 0.0
        self._look = inf  # No open pull is over before.

    @property
    def asked(self) -> int:
        """Messages that may still come."""
        return sum(pull.left for pull in self._open.values())

    def reset(self) -> None:
        """The connection was lost: the server forgot every pull."""
        self._open.clear()
        self._polling = None
        self._order = ()
        self._backlog = True
        self._not_before = 0.0

    def saturated(self) -> None:
        """No slot is free: what arrives from now on waits in its queue."""
        self._backlog = True

    def arrived(self, urgency: int) -> None:
        """A message came from a queue: JetStream serves the pulls of a consumer in turn."""
        pull = next((pull for pull in self._open.values() if pull.urgency == urgency), None)
        if pull is None:
            return
        pull.left -= 1
        if pull.left == 0:
            self._close(pull, filled=True)
        else:
            self._open[pull.number] = self._open.pop(pull.number)  # It is the last in line now.

    def ended(self, number: int, now: float, *, failed: bool = False) -> None:
        """The server says that a pull is over: nothing there, expired, or (failed) no consumer."""
        pull = self._open.get(number)
        if failed:
            self._not_before = now + RETRY_AFTER
        if pull is not None:
            self._close(pull, filled=False)

    def _close(self, pull: Pull, *, filled: bool) -> None:
        del self._open[pull.number]
        if pull.number == self._polling:
            self._polling = None
            if filled:
                self._order = ()  # There may be more: begin again at the most urgent.
            elif not self._order:
                self._backlog = False

    def plan(self, free: int, now: float) -> list[Pull]:
        """What to ask for now, with `free` slots; called after every change and now and then."""
        if now >= self._look:
            for pull in [pull for pull in self._open.values() if pull.until <= now]:
                self._close(pull, filled=False)
            self._look = min([pull.until for pull in self._open.values()], default=inf)
        if free <= 0 or now < self._not_before:
            return []
        if self._backlog:
            return self._poll(free, now)
        return self._stand(free, now)

    def _poll(self, free: int, now: float) -> list[Pull]:
        if self._polling is not None:
            return []
        if not self._order:
            self._order = tuple(range(len(CLASSES)))
            self._credit += self._floor
            if self._credit >= 1.0:
                self._credit -= 1.0
                self._order = tuple(reversed(self._order))
        # What stands at a queue has taken what was there: slots that were all taken for a moment.
        covered = {pull.urgency for pull in self._open.values()}
        left = [urgency for urgency in self._order if urgency not in covered]
        if not left:
            self._order = ()
            self._backlog = False
            return self._stand(free, now)
        urgency, *rest = left
        self._order = tuple(rest)
        standing = sum(pull.left for pull in self._open.values())
        wanted = max(1, free - standing)
        pull = self._new(urgency, wanted, None, now)
        self._polling = pull.number
        return [pull]

    def _stand(self, free: int, now: float) -> list[Pull]:
        asked = [0] * len(CLASSES)
        for pull in self._open.values():
            asked[pull.urgency] += pull.left
        room = free - sum(asked)
        pulls = []
        for urgency, share in enumerate(_SHARES):
            want = int(free * share) or 1
            missing = want - asked[urgency]
            if asked[urgency] == 0 or (missing * 2 >= want and room > 0):
                size = max(1, min(missing, room))
                room -= size
                pulls.append(self._new(urgency, size, EXPIRES[urgency], now))
        return pulls

    def _new(self, urgency: int, batch: int, expires: float | None, now: float) -> Pull:
        self._next += 1
        until = now + (POLL_LIMIT if expires is None else expires + LATE)
        pull = Pull(self._next, urgency, batch, expires, batch, until)
        self._open[pull.number] = pull
        self._look = min(self._look, until)
        return pull
