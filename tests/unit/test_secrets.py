"""Secrets are read from files and the environment, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.access.keys import KeyBook
from gateway.access.tenants import Limits
from gateway.settings import GatewaySettings
from shared.bus import BusOptions
from shared.settings import SettingsError, load
from workers.settings import WorkerSettings

SECRET = "hunter2-very-secret"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(SECRET)
    return file


@pytest.mark.parametrize("cls", [GatewaySettings, WorkerSettings])
def test_settings_do_not_show_them(
    cls: type[GatewaySettings | WorkerSettings], password: Path
) -> None:
    flags = {"nats": f"nats://user:{SECRET}@localhost:4222", "nats_password_file": str(password)}
    settings = load(cls, flags)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert dict(settings.nats_connect())["password"] == SECRET


def test_the_bus_does_not_show_them(password: Path) -> None:
    settings = load(GatewaySettings, {"nats_password_file": str(password)})
    servers = (f"nats://user:{SECRET}@localhost:4222",)
    assert SECRET not in repr(BusOptions(servers, "name", settings.nats_connect()))


def test_problems_do_not_show_them() -> None:
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, {"nats": f"http://user:{SECRET}@localhost"})
    assert SECRET not in str(caught.value)


def test_keys_do_not_show_them() -> None:
    book = KeyBook({"acme": Limits()})
    secret = book.create("acme")
    assert secret not in repr(book)
    assert secret.split("_", 2)[2] not in repr(book)
    assert next(iter(book.keys.values())).digest not in repr(book)
