"""Processes that can be hurt."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from millstream.nats_server import NatsServer, find_binary
from shared.processes import dies_with_parent
from tests.eventually import TICK as TICK
from tests.eventually import until as until
from tests.ports import free_ports as free_ports

ROOT = Path(__file__).parents[3]
START_LIMIT = 30.0
LOAD_LIMIT = 120.0
"""Seconds in which torch and a model are loaded, where others use the machine too."""


class PlainNats(NatsServer):
    """A nats-server as somebody else runs it: no system events, all defaults.

    Args:
        directory: Holds data and log.
        extra: More flags, for a cluster.
        port: Where to listen; 0 is any free one.
    """

    def __init__(self, directory: Path, *extra: str, port: int = 0) -> None:
        super().__init__(directory, port=port)
        self._extra = extra

    def spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    find_binary(), "-a", self.host, "-p", str(self.port or -1),
                    "--ports_file_dir", str(self.directory),
                    "-js", "-sd", str(self.directory / "data"), *self._extra,
                ],
                stdout=log, stderr=log, preexec_fn=dies_with_parent(),
            )  # fmt: skip


@dataclass(slots=True)
class Member:
    """One process of the cluster."""

    name: str
    command: list[str]
    ready_file: Path
    log_file: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def start(self) -> None:
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=self.env, preexec_fn=dies_with_parent(),
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait()
