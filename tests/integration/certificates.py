"""Certificates for tests, made by openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


def need_openssl() -> None:
    """Skip where there is no openssl, fail in CI."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("needs openssl")
        pytest.skip("needs openssl")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder of its own.

    Args:
        folder: Where its files go.
        name: Its common name.
    """

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        need_openssl()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._own = Pair(folder / "ca.pem", folder / "ca.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(self._own.key), "-out", str(self._own.certificate)),
        )

    @property
    def file(self) -> Path:
        """Its certificate."""
        return self._own.certificate

    def issue(self, name: str) -> Pair:
        """Make a certificate for localhost, 127.0.0.1 and `name`, good for servers and clients."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=DNS:localhost,DNS:{name},IP:127.0.0.1\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", "2", "-CAcreateserial"),
            *("-CA", str(self._own.certificate), "-CAkey", str(self._own.key)),
            *("-extfile", str(extensions), "-out", str(pair.certificate)),
        )
        return pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
