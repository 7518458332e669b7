"""The processes of the local stack: start, wait until ready, watch, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from millstream.nats_server import NatsServer
from shared.exits import EXIT_MODEL, EXIT_PORT, EXIT_SETTINGS
from shared.processes import dies_with_parent

POLL = 0.02
KEPT_LINES = 20
LONGEST_LINE = 1 << 20

Echo = Callable[[str, str], None]
"""Takes a child's name and one of its lines."""


class ChildError(RuntimeError):
    """A child cannot be started, or does not stay up; the message holds its last lines."""


class Child(ABC):
    """One process, perhaps started several times."""

    name: str
    pid: int | None = None

    @abstractmethod
    async def start(self) -> None:
        """Spawn it, from the main thread, without waiting for it."""

    @abstractmethod
    async def ready(self, deadline: float) -> str:
        """Wait until it serves, to the monotonic `deadline`; returns what it says of itself.

        Raises:
            ChildError: It ended, or is not ready in time.
        """

    @abstractmethod
    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """Tell it to end, and kill it after `grace` seconds; nothing if it does not run."""

    @abstractmethod
    def last_lines(self) -> str:
        """What it said last."""

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self.pid is not None and self.running:
            os.kill(self.pid, signal.SIGKILL)

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the process lives."""

    def final(self, code: int) -> bool:
        """Whether starting it again would be in vain."""
        return False


class PythonChild(Child):
    """A module of this project as a process that writes a ready file.

    Args:
        name: What people call it.
        arguments: Of the interpreter, without the ready file.
        ready_file: Where it says that it is ready.
        echo: Gets what it writes.
    """

    _FINAL = frozenset({EXIT_SETTINGS, EXIT_MODEL, EXIT_PORT})

    def __init__(self, name: str, arguments: Sequence[str], ready_file: Path, echo: Echo) -> None:
        self.name = name
        self.arguments = list(arguments)
        self._ready_file = ready_file
        self._echo = echo
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Spawn it."""
        self._ready_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.arguments,
            "--ready-file",
            str(self._ready_file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the stack's to order.
            preexec_fn=dies_with_parent(),
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def ready(self, deadline: float) -> str:
        """Wait for the ready file."""
        assert self._process is not None
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                await self.wait()
                raise ChildError(self.told(f"ended with {_reason(self._process.returncode)}"))
            with contextlib.suppress(FileNotFoundError):
                if text := self._ready_file.read_text().strip():
                    return text
            await asyncio.sleep(POLL)
        raise ChildError(self.told("was not ready in time"))

    async def wait(self) -> int:
        """Wait for its end and the rest of what it says."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reading is not None:
            # A grandchild may hold the pipe open.
            await asyncio.wait((self._reading,), timeout=1.0)
        return code

    async def stop(self, grace: float) -> None:
        """Terminate it, then kill it."""
        if self._process is None or not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self.wait()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    def last_lines(self) -> str:
        """The last of its output."""
        return "\n".join(f"  {line}" for line in self._lines)

    def told(self, what: str) -> str:
        """A sentence about it, with its last lines."""
        return f"{self.name} {what}:\n{self.last_lines()}".rstrip(":\n")

    def final(self, code: int) -> bool:
        """Bad settings and models stay bad, and a port stays taken."""
        return code in self._FINAL

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > LONGEST_LINE:  # In pieces: to join them all would take for ever.
                self._line(rest)
                rest = b""
        if rest:
            self._line(rest)

    def _line(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self._lines.append(line)
            self._echo(self.name, line)


class NatsChild(Child):
    """The embedded nats-server."""

    name = "nats-server"

    def __init__(self, server: NatsServer) -> None:
        self._server = server

    async def start(self) -> None:
        """Spawn it."""
        self._server.spawn()
        assert self._server.process is not None
        self.pid = self._server.process.pid

    async def ready(self, deadline: float) -> str:
        """Wait until it greets; returns its URL."""
        await asyncio.to_thread(self._server.wait_ready, deadline - time.monotonic())
        return self._server.url

    async def wait(self) -> int:
        """Wait for its end."""
        process = self._server.process
        assert process is not None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return await asyncio.to_thread(process.wait, 0.5)

    async def stop(self, grace: float) -> None:
        """Terminate it, then kill it."""
        await asyncio.to_thread(self._server.stop, grace)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._server.running

    def last_lines(self) -> str:
        """The end of its log."""
        return self._server.last_lines()


def _reason(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
