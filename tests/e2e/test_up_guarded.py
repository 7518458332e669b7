"""`millstream up` whose gateway is locked by its environment: API keys, TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.access import Limits
from gateway.access.keys import changing
from millstream import SyncClient
from shared.errors import Unauthenticated
from shared.tls import client_context
from tests.e2e.running import RunningStack
from tests.integration.certificates import Authority


def test_a_stack_that_wants_keys_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.json"
    with changing(keys) as book:
        book.tenants["acme"] = Limits()
        secret = book.create("acme")
    monkeypatch.setenv("MILLSTREAM_GATEWAY_API_KEYS", str(keys))
    with RunningStack(tmp_path / "data") as stack:
        with SyncClient(stack.target) as client, pytest.raises(Unauthenticated):
            client.models()
        with SyncClient(stack.target, api_key=secret) as client:
            assert client.complete("x", model="sim", max_tokens=2).text == " 0 1"


def test_a_stack_with_tls_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("gateway")
    monkeypatch.setenv("MILLSTREAM_GATEWAY_TLS_CERT", str(pair.certificate))
    monkeypatch.setenv("MILLSTREAM_GATEWAY_TLS_KEY", str(pair.key))
    with RunningStack(tmp_path / "data", "--workers", "2") as stack:
        assert stack.state["http"].startswith("https://")
        context = client_context(ca=authority.file)
        with SyncClient(stack.target, tls=context) as client:
            (model,) = client.models()
            assert model.workers == 2
