"""nats-server with the configuration of deploy/nats/secure.conf, its paths and port aside."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any, Self

import nats
import nkeys
from nats.aio.client import Client

from millstream.nats_server import find_binary
from shared.tls import client_context
from tests.eventually import eventually
from tests.integration.certificates import Authority

CONFIG = Path(__file__).parents[2] / "deploy" / "nats"
ROLES = ("gateway", "worker", "watcher")


class SecureNats:
    """A server in a folder of its own, with an authority and a key for each role.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = Authority(folder / "tls")
        pair = self.authority.issue("server")
        assert pair.key.name == "server.key"
        self._public = {role: self._make_key(role) for role in ROLES}
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def seed(self, role: str) -> Path:
        """The file with a role's seed."""
        return self._folder / f"{role}.seed"

    def context(self) -> ssl.SSLContext:
        """Trusts the server."""
        return client_context(ca=self.authority.file)

    def settings(self, role: str) -> dict[str, str]:
        """How a process of a role reaches it."""
        return {
            "MILLSTREAM_NATS": self.url,
            "MILLSTREAM_NATS_CA": str(self.authority.file),
            "MILLSTREAM_NATS_NKEY": str(self.seed(role)),
        }

    async def connect(self, role: str, **options: Any) -> Client:
        """A client of a role."""
        return await nats.connect(
            self.url,
            tls=self.context(),
            nkeys_seed=str(self.seed(role)),
            inbox_prefix=f"_INBOX_{role}",
            allow_reconnect=False,
            **options,
        )

    def _make_key(self, role: str) -> str:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        self.seed(role).write_bytes(seed)
        return str(nkeys.from_seed(bytearray(seed)).public_key.decode())

    def __enter__(self) -> Self:
        for name in ("limits.conf", "roles.conf"):
            shutil.copy(CONFIG / name, self._folder)
        text = (CONFIG / "secure.conf").read_text()
        for there, here in (
            ("/etc/millstream/tls", str(self._folder / "tls")),
            ('"/data"', json.dumps(str(self._folder / "data"))),
            ("0.0.0.0:4222", "127.0.0.1:-1"),
            ("127.0.0.1:8222", "127.0.0.1:-1"),
        ):
            assert there in text
            text = text.replace(there, here)
        config = self._folder / "secure.conf"
        config.write_text(f"ports_file_dir: {json.dumps(str(self._folder))}\n{text}")
        with (self._folder / "nats.log").open("wb") as log:
            self._process = process = subprocess.Popen(
                [find_binary(), "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **{f"{k.upper()}_NKEY": v for k, v in self._public.items()}},
            )
        ports = self._folder / f"nats-server_{process.pid}.ports"

        def there_are_ports() -> bool:
            assert process.poll() is None, (self._folder / "nats.log").read_text()
            return ports.exists() and ports.read_text().endswith("}")

        eventually(there_are_ports, "nats-server listens")
        port = json.loads(ports.read_text())["nats"][0].rsplit(":", 1)[1]
        self.url = f"tls://localhost:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
