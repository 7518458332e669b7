"""The models that can be called: what the fleet's workers announce, remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.fleet import Fleet, Worker
from shared.errors import InvalidRequest, Unavailable, UnknownModel
from shared.wire import ModelCard

REMEMBER = 60.0
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One served name.

    Attributes:
        name: The served name.
        state: loading, ready or failed; ready while a worker is, or was a short while ago.
        card: What a worker announced; None while none has loaded it.
        workers: Ready workers.
        reason: Why it failed.
    """

    name: str
    state: str
    card: ModelCard | None
    workers: int
    reason: str = ""


class Catalog:
    """Names to models.

    Args:
        fleet: Who serves what.
        clock: Monotonic seconds.
    """

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._clock = clock
        self._known: dict[str, tuple[ModelCard, float]] = {}
        self._entries: dict[str, Entry] = {}

    def refresh(self) -> dict[str, Entry]:
        """Read the fleet anew; called when it changed. Returns all entries by name."""
        now = self._clock()
        entries = {name: _entry(name, workers) for name, workers in self._fleet.models().items()}
        for name, entry in entries.items():
            if entry.card is not None and entry.workers:
                self._known[name] = (entry.card, now)
        for name, (card, seen) in list(self._known.items()):
            if now - seen > REMEMBER and not entries.get(name, _NONE).workers:
                del self._known[name]
            elif name not in entries:
                entries[name] = Entry(name, "ready", card, 0)
        self._entries = entries
        return entries

    def entries(self) -> list[Entry]:
        """All models, by name."""
        return [self._entries[name] for name in sorted(self.refresh())]

    def card(self, name: str) -> ModelCard:
        """The card of a model that can be called; the empty name is the only one that is served.

        Raises:
            InvalidRequest: The name is empty and not exactly one model is served.
            UnknownModel: Nobody serves it.
            Unavailable: It is loading, or failed to load.
        """
        entry = self._entries.get(name) or self.refresh().get(name)
        if not name:
            entry = self._only()
        if entry is None:
            raise UnknownModel(
                f"model {name[:200]!r} is not served here; {self._served()}", field="model"
            )
        if entry.workers == 0:
            entry = self.refresh().get(entry.name, entry)
        if entry.card is not None and entry.state == "ready":
            return entry.card
        if entry.state == "failed":
            raise Unavailable(
                f"model {entry.name!r} could not be loaded: {entry.reason}", retry_after=10.0
            )
        raise Unavailable(f"model {entry.name!r} is {entry.state}", retry_after=1.0)

    def _only(self) -> Entry:
        entries = self.refresh()
        if len(entries) != 1:
            raise InvalidRequest(f"model is empty; {self._served()}", field="model")
        return next(iter(entries.values()))

    def _served(self) -> str:
        names = sorted(self._entries)
        if not names:
            return "no worker serves any model"
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return "served are " + ", ".join(names[:MOST_NAMED]) + more


_NONE = Entry("", "loading", None, 0)


def _entry(name: str, workers: list[Worker]) -> Entry:
    ready = [worker for worker in workers if worker.ready]
    card = next((w.card for w in ready + workers if w.card is not None), None)
    if ready:
        return Entry(name, "ready", card, len(ready))
    states = {worker.state for worker in workers}
    if "draining" in states:
        return Entry(name, "ready", card, 0)
    if "loading" in states:
        return Entry(name, "loading", card, 0)
    reason = next((worker.reason for worker in workers if worker.reason), "")
    return Entry(name, "failed", card, 0, reason)
