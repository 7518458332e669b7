"""compose.secure.yaml: keys, TLS and rights, all together."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millstream import SyncClient
from millstream.keys import app
from shared.errors import Unauthenticated, Unavailable
from shared.tls import client_context
from tests.containers.docker import UP_SECONDS, Compose, nginx_image
from tests.integration.certificates import Authority


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that compose.secure.yaml asks for, readable for the containers' users."""
    folder = tmp_path_factory.mktemp("secrets")
    run = CliRunner().invoke
    assert run(app, ["nats", str(folder)]).exit_code == 0
    (folder / "nats").mkdir()
    authority = Authority(folder / "authority")
    for place, name in (("nats", "nats"), ("gateway", "gateway")):
        pair = authority.issue(name)
        shutil.copy(pair.certificate, folder / place / "server.pem")
        shutil.copy(pair.key, folder / place / "server.key")
    for role in ("gateway", "worker"):
        shutil.copy(authority.file, folder / role / "ca.pem")
    made = run(app, ["create", "acme", "--file", str(folder / "gateway" / "keys.json")])
    (folder / "key").write_text(made.output.strip())
    for path in (folder, *folder.parents[:1], *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="module")
def environment(stack: Compose, secrets: Path) -> dict[str, str]:
    public = dict(line.split("=") for line in (secrets / "nats.env").read_text().splitlines())
    sim = {"ENGINE": "sim", "SECRETS": str(secrets), "NATS_PORT": "0"}
    return {**stack.environment, **public, **sim}


@pytest.fixture(scope="module")
def secure(environment: dict[str, str]) -> Iterator[Compose]:
    with closing(Compose("millstream-secure", environment, "compose.secure.yaml")) as compose:
        compose.up()
        yield compose


@pytest.fixture(params=["gateways first", "secure first"])
def balanced(environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Compose]:
    """Several gateways behind nginx, all with TLS, whichever overlay comes first."""
    files = ["compose.gateways.yaml", "compose.secure.yaml"]
    if request.param == "secure first":
        files.reverse()
    told = {**environment, "NGINX_IMAGE": nginx_image()}
    with closing(Compose("millstream-balanced", told, *files)) as compose:
        compose.run("up", "-d", "--wait", "--no-build", "--scale", "gateway=2", seconds=UP_SECONDS)
        yield compose


def test_only_who_has_a_key_is_served(secure: Compose, secrets: Path) -> None:
    target = secure.port("gateway", 50051)
    context = client_context(ca=secrets / "gateway" / "ca.pem")
    key = (secrets / "key").read_text()
    with SyncClient(target, tls=context, api_key=key) as client:
        assert client.complete("x", model="sim", max_tokens=3).text == " 0 1 2"
    with SyncClient(target, tls=context) as client, pytest.raises(Unauthenticated):
        client.complete("x", model="sim", max_tokens=3)
    with SyncClient(target, api_key=key) as client, pytest.raises(Unavailable):
        client.complete("x", model="sim", max_tokens=3)


def test_no_part_wanted_more_than_it_may(secure: Compose, secrets: Path) -> None:
    key = (secrets / "key").read_text()
    for service in ("gateway", "worker"):
        logs = secure.logs(service)
        assert "permissions violation" not in logs.lower()
        assert key not in logs
        assert (secrets / service / "nats.seed").read_text() not in logs


def test_tls_goes_through_the_balancer(balanced: Compose, secrets: Path) -> None:
    target = balanced.port("balancer", 50051)
    context = client_context(ca=secrets / "gateway" / "ca.pem")
    key = (secrets / "key").read_text()
    for _ in range(4):  # Connections go to both gateways in turn.
        with SyncClient(target, tls=context, api_key=key) as client:
            assert client.complete("x", model="sim", max_tokens=3).text == " 0 1 2"
    with SyncClient(target, api_key=key) as client, pytest.raises(Unavailable):
        client.complete("x", model="sim", max_tokens=3)
    asked = urllib.request.Request(f"https://{balanced.port('balancer', 8080)}/v1/models")
    asked.add_header("authorization", f"Bearer {key}")
    trusted = ssl.create_default_context(cafile=secrets / "gateway" / "ca.pem")
    with urllib.request.urlopen(asked, context=trusted, timeout=10) as told:
        assert [one["id"] for one in json.load(told)["data"]] == ["sim"]
