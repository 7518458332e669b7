"""The models that can be called: what the fleet's workers announce, remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from gateway.fleet import Fleet
from gateway.typed.schemas import Schemas
from gateway.worker import Worker
from shared.errors import InvalidRequest, Unavailable, UnknownModel
from shared.features import WAIT
from shared.signature import Signature
from shared.typed import Typed, natural
from shared.wire import ModelCard

REMEMBER = 60.0
MOST_NAMED = 20

Visible = Callable[[str], bool]


def _all(_name: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Entry:
    """One served name.

    Attributes:
        name: The served name.
        state: loading, ready or failed; ready while a worker is, or was a short while ago.
        card: What a worker announced; None while none has loaded it.
        workers: Ready workers.
        reason: Why it failed.
        typed: The messages of a function; None for a language model, and for a function whose
            signature cannot be read.
    """

    name: str
    state: str
    card: ModelCard | None
    workers: int
    reason: str = ""
    typed: Typed | None = None

    @property
    def is_function(self) -> bool:
        """Whether it is called by `Predict`, else by `Generate`."""
        return self.card is not None and bool(self.card.signature)


@dataclass(frozen=True, slots=True)
class Function:
    """A function that can be called."""

    card: ModelCard
    typed: Typed


class Catalog:
    """Names to models. A function is known as `name@version`, its default version as `name` too.

    Args:
        fleet: Who serves what.
        clock: Monotonic seconds.
        count: Counts an event.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[[str], None] = lambda _event: None,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._schemas = Schemas(count)
        self._known: dict[str, tuple[ModelCard, float]] = {}
        self._entries: dict[str, Entry] = {}
        self._defaults: dict[str, str] = {}

    def refresh(self) -> dict[str, Entry]:
        """Read the fleet anew; called when it changed. Returns all entries by name."""
        now = self._clock()
        entries = {name: _entry(name, workers) for name, workers in self._fleet.models().items()}
        for name, entry in entries.items():
            if entry.card is not None and entry.workers:
                self._known[name] = (entry.card, now)
        for name, (card, seen) in list(self._known.items()):
            found = entries.get(name)
            if now - seen > REMEMBER and not (found is not None and found.workers):
                del self._known[name]
            elif found is None:
                entries[name] = Entry(name, "ready", card, 0)
            elif found.card is None:
                entries[name] = replace(found, card=card)
        for name, entry in entries.items():
            if entry.is_function:
                entries[name] = replace(entry, typed=self._schemas.of(name, entry.card))
        self._schemas.keep(entries)
        self._entries = entries
        self._defaults = _defaults(entries.values())
        return entries

    @property
    def forgets_in(self) -> float | None:
        """Seconds until a model is forgotten if nothing is heard of it; None if none would be."""
        left = [
            seen + REMEMBER - self._clock()
            for name, (_, seen) in self._known.items()
            if not self._entries[name].workers
        ]
        return max(0.0, min(left)) if left else None

    def entries(self) -> list[Entry]:
        """All models, by name."""
        self.refresh()
        return self.known()

    def known(self) -> list[Entry]:
        """All models as of the last `refresh`, by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def defaults(self) -> list[tuple[str, Entry]]:
        """The default versions of functions by their names alone, as of the last `refresh`."""
        return [(name, self._entries[full]) for name, full in sorted(self._defaults.items())]

    def find(self, name: str) -> Entry | None:
        """A model by its served name, or a function by its name alone; None if it is not known."""
        entry = self._look_up(name)
        if entry is None:
            self.refresh()
            entry = self._look_up(name)
        return entry

    def card(self, name: str, visible: Visible = _all) -> ModelCard:
        """The card of a language model that can be called.

        Args:
            name: The served name; empty for the only one that is served.
            visible: Which models the caller may know of.

        Raises:
            InvalidRequest: It is a function, or the name is empty and not exactly one is served.
            UnknownModel: Nobody serves it.
            Unavailable: It is loading, or failed to load.
        """
        entry = self._entry(name, visible) if name else self._only(visible)
        if entry.workers == 0:
            entry = self.refresh().get(entry.name, entry)
        if entry.is_function:
            path = f", or {entry.typed.path}" if entry.typed is not None else ""
            raise InvalidRequest(
                f"{entry.name!r} is a function: call Predict or PredictStream{path}", field="model"
            )
        if entry.card is not None and entry.state == "ready":
            return entry.card
        raise _not_ready(entry)

    def function(self, name: str, visible: Visible = _all) -> Function:
        """A function that can be called now, or whose calls may wait for a worker.

        Args:
            name: `name@version`, or a name alone for its default version.
            visible: Which models the caller may know of.

        Raises:
            InvalidRequest: The name is empty, or a language model's.
            UnknownModel: Nobody serves it.
            Unavailable: No worker serves it now, or its signature cannot be read.
        """
        if not name:
            raise InvalidRequest(f"model is empty; {self._served(visible)}", field="model")
        entry = self._entry(name, visible)
        if entry.workers == 0:
            self.refresh()
            entry = self._entry(name, visible)
        card, typed = entry.card, entry.typed
        if card is None:
            raise _not_ready(entry)
        if not entry.is_function:
            raise InvalidRequest(
                f"{entry.name!r} is a language model: call Generate", field="model"
            )
        if typed is None:
            raise Unavailable(
                f"the signature that a worker announced for {entry.name!r} cannot be read here",
                retry_after=10.0,
            )
        if entry.workers or (entry.state == "ready" and WAIT in card.features):
            return Function(card, typed)
        if entry.state == "ready":
            raise Unavailable(f"no worker serves {entry.name!r} now", retry_after=1.0)
        raise _not_ready(entry)

    def _entry(self, name: str, visible: Visible) -> Entry:
        entry = self.find(name)
        if entry is None:
            raise UnknownModel(
                f"model {name[:200]!r} is not served here; {self._served(visible)}", field="model"
            )
        return entry

    def _look_up(self, name: str) -> Entry | None:
        return self._entries.get(name) or self._entries.get(self._defaults.get(name, ""))

    def _only(self, visible: Visible) -> Entry:
        models = [
            entry
            for entry in self.refresh().values()
            if not entry.is_function and visible(entry.name)
        ]
        if len(models) != 1:
            raise InvalidRequest(f"model is empty; {self._served(visible)}", field="model")
        return models[0]

    def _served(self, visible: Visible) -> str:
        names = sorted(filter(visible, self._entries))
        if not names:
            return "no worker serves any model"
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return "served are " + ", ".join(names[:MOST_NAMED]) + more


def _defaults(entries: Iterable[Entry]) -> dict[str, str]:
    """The served name of each function's default version: marked as such, else the greatest.

    One that still loads, or failed to, has no signature yet: it stands for its name where no other
    version does, so that a call by that name hears why it cannot be served.
    """
    best: dict[str, Signature] = {}
    unread: dict[str, str] = {}
    for entry in entries:
        name, at, version = entry.name.rpartition("@")
        if entry.typed is not None:
            signature = entry.typed.signature
            rival = best.get(signature.name)
            if rival is None or _rank(signature) > _rank(rival):
                best[signature.name] = signature
        elif entry.card is None and at and natural(version) > natural(unread.get(name, "")):
            unread[name] = version
    loading = {name: f"{name}@{version}" for name, version in unread.items()}
    return loading | {name: signature.served_name for name, signature in best.items()}


def _rank(signature: Signature) -> tuple[bool, Any]:
    return signature.default, natural(signature.version)


def _not_ready(entry: Entry) -> Unavailable:
    if entry.state == "failed":
        return Unavailable(
            f"model {entry.name!r} could not be loaded: {entry.reason}", retry_after=10.0
        )
    return Unavailable(f"model {entry.name!r} is {entry.state}", retry_after=1.0)


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
