"""What a client saw, the only thing the checker believes about an answer, and how it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.items import Items
from gateway.ports import Forward, Summary, TextOnly
from gateway.session import Session
from millstream.v1 import inference_pb2 as pb
from shared import wire
from shared.errors import MillstreamError
from tests.simulator.calls import Call
from tests.simulator.engines import POISON
from tests.simulator.world import Process, World
from workers.engines.sim import chain_broken


class Client(ABC):
    """One client and its request (an `Outlet`).

    Attributes:
        wanted: How many tokens or items make the answer complete.
        deadline: Its deadline in seconds, or None.
        poison: Whether its request kills workers.
        breaks: What no client must ever see.
        summary: What it was told at the end, or None.
        error: Or the error.
        failed_at: When it was told.
        left: When it went by itself.
        cut: When its gateway died under it.
    """

    def __init__(
        self, world: World, name: str, wanted: int, deadline: float | None, *, poison: bool
    ) -> None:
        self.world = world
        self.name = name
        self.wanted = wanted
        self.deadline = deadline
        self.poison = poison
        self.breaks: list[str] = []
        self.opened = world.now
        self.summary: Summary | None = None
        self.error: MillstreamError | None = None
        self.failed_at: float | None = None
        self.left: float | None = None
        self.cut: float | None = None
        self._begun = False
        self._gateway: Process | None = None
        self._session: Session | None = None

    @property
    @abstractmethod
    def got(self) -> int:
        """How many tokens or items it has."""

    forward: Forward | None = None

    @abstractmethod
    def wrong(self) -> str:
        """What is wrong with their order, or ""."""

    @property
    def over(self) -> bool:
        """Whether nothing more is expected."""
        told = self.summary is not None or self.error is not None
        return told or self.left is not None or self.cut is not None

    @property
    def gone(self) -> float | None:
        """When nobody waited for it any more."""
        return self.left if self.left is not None else self.cut

    def opened_by(self, gateway: Process, session: Session) -> None:
        """Its request was accepted."""
        self._gateway, self._session = gateway, session

    @abstractmethod
    def delta(
        self,
        index: int,
        ids: Sequence[int],
        text: str,
        choice: int,
        attempt: int,
        logprobs: Any,
        ends: Sequence[int] | None = None,
    ) -> None: ...

    @abstractmethod
    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None: ...

    def started(self, worker: str) -> None:
        if self._begun:
            self.breaks.append("started twice")
        self._begun = True

    def finished(self, summary: Summary) -> None:
        self._end()
        self.summary = summary

    def failed(self, error: MillstreamError) -> None:
        self._end()
        self.error = error
        self.failed_at = self.world.now

    def _end(self) -> None:
        if self.summary is not None or self.error is not None:
            self.breaks.append("ended twice")

    def expect(self, index: int) -> None:
        """Something that begins at an index came."""
        if self.summary is not None or self.error is not None:
            self.breaks.append(f"something at {index} after the end")
        if index != self.got:
            self.breaks.append(f"something at {index}, {self.got} were there")


class TextClient(TextOnly, Client):
    """The client of a generation.

    Attributes:
        prompt: What it asked.
        tokens: What it got, in the order in which it got it.
    """

    def __init__(
        self, world: World, name: str, prompt: tuple[int, ...], wanted: int, deadline: float | None
    ) -> None:
        super().__init__(world, name, wanted, deadline, poison=prompt[0] == POISON)
        self.prompt = prompt
        self.tokens: list[int] = []

    @property
    def got(self) -> int:
        return len(self.tokens)

    def wrong(self) -> str:
        place = chain_broken(self.prompt, self.tokens)
        return "" if place is None else f"the chain breaks at {place} of {len(self.tokens)}"

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
        self.expect(index)
        if text != "".join(f" {token}" for token in ids):
            self.breaks.append(f"text {text!r} for {list(ids)}")
        self.tokens.extend(ids)

    def forward(self, message: bytes) -> None:
        """A token whose message a worker made."""
        delta = pb.GenerateResponse.FromString(message).delta
        self.delta(delta.index, delta.token_ids, delta.text, delta.choice, delta.attempt, None)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a function's client takes its items.

    Attributes:
        pace: Seconds an item; 0 takes each as it comes, None a moment later.
        stops_at: It takes nothing more after so many items...
        stops_for: ...for so many seconds, and then everything as it comes.
    """

    pace: float | None = 0.0
    stops_at: int | None = None
    stops_for: float = 0.0


class CallClient(Client):
    """The client of a function's call.

    Attributes:
        call: What it asked.
        most: Bytes that its gateway kept for it, at most: what it had not taken, the item that is
            not whole, and what came early.
    """

    def __init__(
        self, world: World, name: str, call: Call, reader: Reader, deadline: float | None
    ) -> None:
        super().__init__(world, name, call.count, deadline, poison=call.poison)
        self.call = call
        self.most = 0
        self._reader = reader
        self._got = 0
        self._taken = 0
        self._untaken: deque[int] = deque()
        self._reading = False
        self._stopped = False

    @property
    def got(self) -> int:
        return self._got

    def wrong(self) -> str:
        return f"{self._got} items of {self.call.count}" if self._got > self.call.count else ""

    def delta(self, *given: Any, **named: Any) -> None:
        self.breaks.append(f"tokens for a function: {given}")

    def items(self, index: int, items: Sequence[bytes], attempt: int) -> None:
        self.expect(index)
        for place, item in enumerate(items, self._got):
            if not self.call.has(place, item):
                self.breaks.append(f"item {place} of attempt {attempt} is {item[:20]!r}...")
            self._untaken.append(len(item) + wire.ITEM_OVERHEAD)
        self._got += len(items)
        self._read()

    def watch(self) -> None:
        """A frame came for it: see what its gateway keeps."""
        answer = self._session.answer if self._session is not None else None
        assert isinstance(answer, Items)
        early = sum(
            len(part)
            for chunk in answer.lanes[0].early.values()
            if isinstance(chunk, wire.Parts)
            for part in chunk.parts
        )
        kept = sum(self._untaken) + sum(map(len, answer._open)) + early
        self.most = max(self.most, kept)

    # ---- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        """See to it that what is there is taken, sooner or later."""
        reader, gateway = self._reader, self._gateway
        if self._reading or self._stopped or gateway is None:
            return
        if reader.pace == 0.0:
            self._take(len(self._untaken))
        elif self._untaken:
            self._reading = True
            gateway.after(reader.pace or 0.0, self._next)

    def _next(self) -> None:
        self._reading = False
        self._take(1 if self._reader.pace else len(self._untaken))
        self._read()

    def _take(self, items: int) -> None:
        stops_at = self._reader.stops_at
        if stops_at is not None and self._taken + items >= stops_at:
            items = max(0, stops_at - self._taken)
            self._stop()
        for _ in range(items):
            self._untaken.popleft()
        self._taken += items
        if self._session is not None and not self.over:
            self._session.took(self._taken)

    def _stop(self) -> None:
        assert self._gateway is not None
        self._stopped = True
        self._gateway.after(self._reader.stops_for, self._wake)

    def _wake(self) -> None:
        self._stopped = False
        self._reader = Reader()
        self._read()
