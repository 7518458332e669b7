"""Threads for synchronous functions, and their way back to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

Work = Callable[[], Any]
Outcome = tuple[bool, Any]
"""Whether it returned, and what; or what it raised."""


class Threads:
    """A bounded pool of daemon threads, for one event loop.

    `concurrent.futures` has no place here: the process waits for its threads at exit, and a
    function that cannot be interrupted would keep a drained worker alive.

    Args:
        most: Threads at once; they start when needed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[contextvars.Context, Work, asyncio.Future[Outcome]] | None]
        self._work = SimpleQueue()
        self._count = 0
        self._busy = 0
        self._posted: deque[Callable[[], None]] = deque()
        self._planned = False

    def run(self, work: Work) -> asyncio.Future[Outcome]:
        """Do it in a thread, with the caller's context variables."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._busy += 1
        self._work.put((contextvars.copy_context(), work, future))
        if self._busy > self._count < self._most:
            name = f"function-{self._count}"
            self._count += 1
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def post(self, callback: Callable[[], None]) -> None:
        """Call it on the loop, in order; from any thread. The loop is woken once per turn."""
        self._posted.append(callback)
        if not self._planned:
            self._planned = True
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens.
                self._loop.call_soon_threadsafe(self._drain)

    def close(self) -> None:
        """Let idle threads end; those at work are left behind."""
        for _ in range(self._count):
            self._work.put(None)

    def _drain(self) -> None:
        self._planned = False
        for _ in range(len(self._posted)):
            self._posted.popleft()()

    def _serve(self) -> None:
        while (given := self._work.get()) is not None:
            context, work, future = given
            self.post(partial(self._done, future, _outcome(context, work)))
            del context, work, future, given  # Nothing of a call outlives it here.

    def _done(self, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        self._busy -= 1
        if not future.done():
            future.set_result(outcome)


def _outcome(context: contextvars.Context, work: Work) -> Outcome:
    try:
        return True, context.run(work)
    except KeyboardInterrupt:  # The user's own: the terminal's goes to the main thread.
        return False, RuntimeError("the function raised KeyboardInterrupt")
    except BaseException as error:  # A user's function: SystemExit in a thread is no one's else.
        return False, error
