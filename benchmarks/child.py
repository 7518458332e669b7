"""The load client as a child process."""

from __future__ import annotations

import subprocess
import sys
from typing import Self

from benchmarks.accounting import ROOT
from benchmarks.loads import Order, Outcome


class SystemFault(RuntimeError):
    """A system does not start or does not answer; the message holds its last lines."""


class LoadClient:
    """The load client as a child process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.client"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, order: Order) -> None:
        """Carry out an order; returns when the last answer has ended.

        Raises:
            SystemFault: A call failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(order.line() + "\n")
        self._process.stdin.flush()
        if (line := self._line()) != "ended":
            raise SystemFault(f"the load client: {line}")

    def outcome(self) -> Outcome:
        """What the load showed, once every answer is checked.

        Raises:
            SystemFault: A token was missing or out of order.
        """
        line = self._line()
        if not line.startswith("{"):
            raise SystemFault(f"the load client: {line}")
        return Outcome.parse(line)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
