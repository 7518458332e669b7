"""Frames out of messages; what is none is counted, and now and then logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import structlog

from shared import wire
from shared.natsparser import Handler
from shared.telemetry import rare

log = structlog.get_logger(__name__)

F = TypeVar("F")


class Frames:
    """Reads what arrives at a gateway.

    Args:
        events: Where what cannot be read is counted.
    """

    def __init__(self, events: Counter[str]) -> None:
        self._events = events

    def read(self, subject: bytes, data: bytes) -> wire.Frame | None:
        """The frame in a message, or None where there is none."""
        try:
            return wire.decode(data)
        except wire.WireError as error:
            self.bad(subject, error)
            return None

    def every(self, handle: Callable[[wire.Frame], None]) -> Handler:
        """A handler of messages that hands on what frames they hold."""

        def handler(subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
            frame = self.read(subject, data)
            if frame is not None:
                handle(frame)

        return handler

    def only(self, kind: type[F], handle: Callable[[F], None]) -> Handler:
        """A handler of messages that hands on frames of one kind: no others belong there."""

        def handler(subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
            frame = self.read(subject, data)
            if isinstance(frame, kind):
                handle(frame)
            elif frame is not None:
                self.bad(subject, f"{type(frame).__name__}: want {kind.__name__}")

        return handler

    def bad(self, subject: bytes, error: object) -> None:
        """Somebody sent what does not belong there."""
        self._events["malformed"] += 1
        count = self._events["malformed"]
        if rare(count):
            log.warning(
                "malformed_frame",
                subject=subject.decode(errors="replace"),
                error=str(error),
                count=count,
            )
