"""TLS at the gateway, with certificates that are replaced while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.health import HealthService
from gateway.server import GrpcServer
from millstream import SyncClient
from millstream.healthcheck import check_gateway, tls_of
from millstream.nats_server import NatsServer
from shared.errors import Unavailable
from shared.tls import TlsError, client_context, server_context
from tests.integration.certificates import Authority, Pair
from tests.integration.processes import Parts


class Files:
    """The files that a server is told of."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.client_ca = folder / "clients.pem"

    def put(self, pair: Pair) -> None:
        shutil.copy(pair.key, self.key)
        shutil.copy(pair.certificate, self.certificate)


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "old", "old authority")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "new", "new authority")


@pytest.fixture
def files(tmp_path: Path, old: Authority) -> Files:
    files = Files(tmp_path)
    files.put(old.issue("server"))
    shutil.copy(old.file, files.client_ca)
    return files


@pytest.fixture
async def port(files: Files) -> AsyncIterator[int]:
    """A server that asks for no client certificates."""
    context = server_context(files.certificate, files.key, every=0.0)
    server = GrpcServer([HealthService()], ssl=context)
    yield await server.start("127.0.0.1", 0)
    await server.close()


@pytest.fixture
async def mutual_port(files: Files) -> AsyncIterator[int]:
    """A server that does."""
    context = server_context(files.certificate, files.key, client_ca=files.client_ca, every=0.0)
    server = GrpcServer([HealthService()], ssl=context)
    yield await server.start("127.0.0.1", 0)
    await server.close()


async def call(port: int, context: ssl.SSLContext) -> None:
    """Connect and wait for the server's first frame.

    Raises:
        OSError: No TLS connection comes about, or it is ended.
    """
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if not await reader.read(9):
            raise ConnectionResetError("ended without a frame")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_clients_that_trust_the_authority_connect(port: int, old: Authority) -> None:
    await call(port, client_context(ca=old.file))


async def test_others_do_not(port: int, new: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await call(port, client_context(ca=new.file))


async def test_a_new_certificate_is_served_without_a_restart(
    port: int, files: Files, old: Authority, new: Authority
) -> None:
    await call(port, client_context(ca=old.file))
    files.put(new.issue("server"))
    await call(port, client_context(ca=new.file))
    with pytest.raises(ssl.SSLCertVerificationError):
        await call(port, client_context(ca=old.file))


async def test_files_that_do_not_load_change_nothing(
    port: int, files: Files, old: Authority, new: Authority
) -> None:
    files.certificate.write_text("no certificate")
    await call(port, client_context(ca=old.file))
    files.certificate.unlink()
    await call(port, client_context(ca=old.file))
    files.put(new.issue("server"))
    await call(port, client_context(ca=new.file))


async def test_mutual_tls(mutual_port: int, old: Authority, new: Authority) -> None:
    mine, foreign = old.issue("client"), new.issue("client")
    await call(mutual_port, context_of(old, mine))
    for context in (client_context(ca=old.file), context_of(old, foreign)):
        with pytest.raises(OSError):
            await call(mutual_port, context)


async def test_a_new_client_authority_replaces_the_old_one(
    mutual_port: int, files: Files, old: Authority, new: Authority
) -> None:
    before, after = old.issue("client"), new.issue("client")
    await call(mutual_port, context_of(old, before))
    shutil.copy(new.file, files.client_ca)
    await call(mutual_port, context_of(old, after))
    with pytest.raises(OSError):
        await call(mutual_port, context_of(old, before))


def context_of(authority: Authority, pair: Pair) -> ssl.SSLContext:
    return client_context(ca=authority.file, certificate=pair.certificate, key=pair.key)


def test_what_cannot_be_used_is_said(tmp_path: Path, old: Authority) -> None:
    pair, other = old.issue("a"), old.issue("b")
    with pytest.raises(TlsError, match="missing"):
        server_context(tmp_path / "missing", pair.key)
    with pytest.raises(TlsError, match=r"a\.pem with .*b\.key"):
        server_context(pair.certificate, other.key)
    with pytest.raises(TlsError, match="together"):
        client_context(ca=old.file, certificate=pair.certificate)


def test_a_gateway_serves_tls_to_clients_and_its_health_check(
    tmp_path: Path, files: Files, old: Authority
) -> None:
    environment = {
        "MILLSTREAM_GATEWAY_TLS_CERT": str(files.certificate),
        "MILLSTREAM_GATEWAY_TLS_KEY": str(files.key),
        "MILLSTREAM_GATEWAY_TLS_CLIENT_CA": str(files.client_ca),
    }
    with NatsServer(tmp_path / "nats") as nats, Parts(tmp_path) as parts:
        target = parts.gateway("--nats", nats.url, **environment)
        parts.worker("one", "--nats", nats.url)
        with SyncClient(target, tls=context_of(old, old.issue("client"))) as client:
            assert client.complete("x", model="sim", max_tokens=2).text == " 0 1"
        with SyncClient(target) as client, pytest.raises(Unavailable):
            client.models(deadline=5.0)
        assert check_gateway(int(target.rsplit(":", 1)[1]), tls_of(environment)) == ""


def test_a_gateway_that_cannot_use_its_certificate_says_so(tmp_path: Path, files: Files) -> None:
    files.key.write_text("no key")
    with Parts(tmp_path) as parts:
        flags = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
        parts.spawn("gateway", "gateway", ["--grpc-port", "0", *flags])
        assert parts.wait("gateway") == 6
        assert "server.key" in parts.log("gateway")
