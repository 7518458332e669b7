"""Clients that ask without a pause and check every answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from millstream import Client
from shared.errors import MillstreamError
from tests.eventually import eventually

TOKENS = 150


@dataclass
class Tally:
    """What came of it.

    Attributes:
        answers: Whole ones.
        attempts: Those of them that needed more than one worker.
        problems: What was wrong with the others.
        workers: Who answered.
    """

    answers: int = 0
    attempts: int = 0
    problems: list[str] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)


class Load:
    """Asks the sim engine from a thread of its own, from entering to leaving.

    Every answer must be all tokens in order; anything else is a problem.

    Args:
        target: The gateway.
        clients: How many answers are under way at a time.
    """

    def __init__(self, target: str, clients: int = 8) -> None:
        self.tally = Tally()
        self._target = target
        self._clients = clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_on() for _ in range(self._clients)))

    async def _ask_on(self) -> None:
        wanted = "".join(f" {k}" for k in range(TOKENS))
        tally = self.tally
        async with Client(self._target) as client:
            while not self._stop.is_set():
                try:
                    answer = await client.complete(
                        "x", model="sim", max_tokens=TOKENS, deadline=60.0
                    )
                except MillstreamError as error:
                    tally.problems.append(f"{error.kind}: {error}")
                    continue
                if answer.text != wanted:
                    tally.problems.append(f"another text: {answer.text[:200]!r}")
                tally.answers += 1
                tally.attempts += answer.finished.attempts > 1
                tally.workers.add(answer.started.worker)


def until(load: Load, condition: Callable[[], bool], what: str) -> None:
    """Wait under load for something, or for the first problem."""
    eventually(lambda: load.tally.problems or condition(), what, 60.0)
