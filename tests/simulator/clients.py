"""What a client saw: the only thing the checker believes about an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.ports import Summary
from shared.errors import MillstreamError
from tests.simulator.world import World


class Client:
    """One client and its request (an `Outlet`).

    Attributes:
        tokens: What it got, in the order in which it got it.
        breaks: What no client must ever see.
        ended: When its stream ended, however.
        left: When it went by itself.
        cut: When its gateway died under it.
    """

    def __init__(
        self,
        world: World,
        name: str,
        prompt: tuple[int, ...],
        wanted: int,
        deadline: float | None = None,
    ) -> None:
        self._world = world
        self.deadline = deadline
        self.name = name
        self.prompt = prompt
        self.wanted = wanted
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.breaks: list[str] = []
        self.opened = world.now
        self.summary: Summary | None = None
        self.error: MillstreamError | None = None
        self.left: float | None = None
        self.cut: float | None = None
        self._begun = False

    @property
    def over(self) -> bool:
        """Whether nothing more is expected."""
        told = self.summary is not None or self.error is not None
        return told or self.left is not None or self.cut is not None

    @property
    def gone(self) -> float | None:
        """When nobody waited for it any more."""
        return self.left if self.left is not None else self.cut

    def started(self, worker: str) -> None:
        if self._begun:
            self.breaks.append("started twice")
        self._begun = True

    def delta(
        self, index: int, ids: Sequence[int], text: str, choice: int, attempt: int, logprobs: Any
    ) -> None:
        if self.summary is not None or self.error is not None:
            self.breaks.append(f"tokens at {index} after the end")
        if index != len(self.tokens):
            self.breaks.append(f"tokens at {index}, {len(self.tokens)} were there")
        if text != "".join(f" {token}" for token in ids):
            self.breaks.append(f"text {text!r} for {list(ids)}")
        self.tokens.extend(ids)
        self.times.append(self._world.now)

    def finished(self, summary: Summary) -> None:
        self._end()
        self.summary = summary

    def failed(self, error: MillstreamError) -> None:
        self._end()
        self.error = error

    def _end(self) -> None:
        if self.summary is not None or self.error is not None:
            self.breaks.append("ended twice")
