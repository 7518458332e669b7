"""TLS whose certificates can be replaced while the process runs.

A server's context is asked at each handshake (at most once a second it looks at the files) and
hands the handshake to a context made of what the files hold now. New files that do not load change
nothing but the log. A client's context is made anew for each connection by who connects.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import structlog

from shared.watch import Watch

log = structlog.get_logger(__name__)


class TlsError(ValueError):
    """Certificate, key or authority cannot be used; says which file."""


def server_context(
    certificate: Path,
    key: Path,
    *,
    client_ca: Path | None = None,
    protocols: Sequence[str] = ("h2",),
    every: float = 1.0,
) -> ssl.SSLContext:
    """A server's context that follows its files.

    Args:
        certificate: The chain, PEM, the server's own first.
        key: Its private key, PEM, without a password.
        client_ca: Clients must show a certificate of these authorities; None asks for none.
        protocols: For ALPN, best first.
        every: Seconds between two looks at the files, at least.

    Raises:
        TlsError: The files cannot be used.
    """

    def make() -> ssl.SSLContext:
        return _server_context(certificate, key, client_ca, protocols)

    outer = make()
    current = outer
    watch = Watch([certificate, key, *([client_ca] if client_ca else [])], every=every)

    def choose(connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        nonlocal current
        if watch.changed():
            try:
                current = make()
            except TlsError as error:
                log.error("certificate_not_reloaded", reason=str(error))
            else:
                log.info("certificate_reloaded", file=str(certificate))
        connection.context = current

    outer.sni_callback = choose  # Called at every handshake.
    return outer


def _server_context(
    certificate: Path, key: Path, client_ca: Path | None, protocols: Sequence[str]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    context.options |= ssl.OP_NO_TICKET  # A resumed session would outlive its certificate.
    context.num_tickets = 0
    _load_pair(context, certificate, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    *, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A client's context.

    Args:
        ca: Authorities to trust, PEM; None is the system's.
        certificate: Shown to servers that ask for one.
        key: Its private key.

    Raises:
        TlsError: The files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, ca)
    if certificate is not None and key is not None:
        _load_pair(context, certificate, key)
    elif certificate is not None or key is not None:
        raise TlsError("a client's certificate and its key are given together or not at all")
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{certificate} with {key}: {error}") from error


def _load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{ca}: {error}") from error


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal."""
    return ""
