"""What functions take and give, as their workers announce it, built into messages once."""

from __future__ import annotations

from collections.abc import Callable, Container

import structlog

from shared import typed
from shared.typed import Typed
from shared.wire import ModelCard

log = structlog.get_logger(__name__)

REFUSED = "signature_refused"
"""The event that is counted for a signature that cannot be served."""


class Schemas:
    """The messages of functions by served name.

    Args:
        count: Counts an event.
    """

    def __init__(self, count: Callable[[str], None] = lambda _event: None) -> None:
        self._count = count
        self._known: dict[str, tuple[bytes, Typed | None]] = {}

    def of(self, name: str, card: ModelCard | None) -> Typed | None:
        """The messages of a function; the same object as long as its signature is the same.

        Args:
            name: The served name under which a worker announced the card.
            card: What it announced.

        Returns:
            None for a language model, and for a signature that cannot be read: that is logged and
            counted once.
        """
        if card is None or not card.signature:
            return None
        known = self._known.get(name)
        if known is None or known[0] != card.signature:
            known = self._known[name] = (card.signature, self._build(name, card))
        return known[1]

    def keep(self, names: Container[str]) -> None:
        """Forget all others."""
        for name in [name for name in self._known if name not in names]:
            del self._known[name]

    def _build(self, name: str, card: ModelCard) -> Typed | None:
        try:
            signature = typed.load(card.signature)
            if not name == card.name == signature.served_name:
                raise ValueError(f"it is one of {signature.served_name!r}, not of {name!r}")
            return Typed(signature)
        except (ValueError, TypeError) as error:  # Descriptor pools raise TypeError.
            self._count(REFUSED)
            log.error(REFUSED, model=name[:200], reason=str(error)[:500])
            return None
