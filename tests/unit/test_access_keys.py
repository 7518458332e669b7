from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nkeys
import pytest
from typer.testing import CliRunner

from gateway.access import Access, Limits
from gateway.access.keys import KeyBook, KeyFileError, changing, digest, read
from millstream.keys import app
from shared.errors import Unauthenticated

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def create(file: Path, tenant: str = "acme", limits: Limits | None = None) -> str:
    with changing(file) as book:
        book.tenants.setdefault(tenant, limits or Limits())
        return book.create(tenant)


def test_a_key_is_found_by_nothing_but_itself() -> None:
    book = KeyBook({"acme": Limits()})
    secret = book.create("acme")
    found = book.find(secret, NOW)
    assert found is not None
    assert found.tenant == "acme"
    last = "A" if secret[-1] != "A" else "B"
    for wrong in ("", "ms_", secret[:-1], secret[:-1] + last, secret + "A", found.digest, found.id):
        assert book.find(wrong, NOW) is None


def test_a_key_expires() -> None:
    book = KeyBook({"acme": Limits()})
    secret = book.create("acme", expires=NOW)
    assert book.find(secret, NOW - timedelta(seconds=1)) is not None
    assert book.find(secret, NOW) is None


def test_the_file_holds_no_key_and_only_its_owner_reads_it(file: Path) -> None:
    secret = create(file)
    text = file.read_text()
    assert secret not in text
    assert secret.split("_", 2)[2] not in text
    assert digest(secret) in text
    assert file.stat().st_mode & 0o077 == 0
    assert secret not in repr(read(file))
    assert digest(secret) not in repr(read(file))


def test_the_file_says_the_same_when_it_is_read_again(file: Path) -> None:
    limits = Limits(requests_per_second=2.5, streams=3, models=("a", "b"), priorities=("batch",))
    create(file, limits=limits)
    book = read(file)
    assert book.tenants == {"acme": limits}
    with changing(file):
        pass
    assert read(file) == book


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "JSON"),
        ('{"tenants": {"a": {"requests_per_second": 0}}}', "requests_per_second"),
        ('{"tenants": {"a": {"requests_per_secund": 1}}}', "requests_per_secund"),
        ('{"tenants": {"a": {"priorities": ["urgent"]}}}', "priorities"),
        ('{"tenants": {"a b": {}}}', "tenants"),
        ('{"keys": [{"id": "zz"}]}', "keys.0.id"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(file: Path, content: str, told: str) -> None:
    file.write_text(content)
    with pytest.raises(KeyFileError, match=told):
        read(file)


def test_a_key_of_no_tenant_is_refused(file: Path) -> None:
    create(file)
    content = json.loads(file.read_text())
    content["tenants"] = {}
    file.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="acme"):
        read(file)


@pytest.mark.parametrize("header", ["", "Basic x", "Bearer", "Bearer ", "Bearer ms_00000000_x"])
def test_no_key_or_a_wrong_one_is_unauthenticated(file: Path, header: str) -> None:
    create(file)
    with pytest.raises(Unauthenticated):
        Access(file).admit(header)


def test_the_scheme_is_read_in_any_case(file: Path) -> None:
    secret = create(file)
    access = Access(file)
    assert access.admit(f"Bearer {secret}") == access.admit(f"bearer {secret}") == "acme"


def test_without_a_file_everybody_is_let_in() -> None:
    access = Access(None)
    assert access.admit("") == access.admit("Bearer anything") == ""


def test_changes_hold_without_a_restart(file: Path) -> None:
    first = create(file)
    clock = Clock()
    access = Access(file, clock)
    second = create(file)
    with pytest.raises(Unauthenticated):
        access.admit(f"Bearer {second}")
    clock.now = 2.0
    assert access.admit(f"Bearer {second}") == "acme"
    with changing(file) as book:
        book.revoke(first.split("_")[1])
    clock.now = 4.0
    with pytest.raises(Unauthenticated):
        access.admit(f"Bearer {first}")


def test_a_broken_file_changes_nothing(file: Path) -> None:
    secret = create(file)
    clock = Clock()
    access = Access(file, clock)
    for content in ("{", None):
        clock.now += 2.0
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        assert access.admit(f"Bearer {secret}") == "acme"


def test_an_error_never_shows_the_key(file: Path) -> None:
    create(file)
    with pytest.raises(Unauthenticated) as caught:
        Access(file).admit("Bearer ms_0123abcd_very-secret")
    assert "very-secret" not in str(caught.value)


def test_the_command_line(file: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["create", "acme", "--file", str(file), "--note", "laptop", "--days", "30"])
    assert made.exit_code == 0, made.output
    secret = made.output.strip()
    number = secret.split("_")[1]
    assert Access(file).admit(f"Bearer {secret}") == "acme"
    told = run(app, ["limit", "acme", "--file", str(file), "--streams", "4", "--model", "m"])
    assert told.output == "acme  streams=4 models=m\n"
    listed = run(app, ["list", "--file", str(file)]).output
    assert "streams=4" in listed
    assert f"{number}  since" in listed
    assert secret not in listed
    told_json = json.loads(run(app, ["list", "--file", str(file), "--json"]).output)
    assert [key["note"] for key in told_json["keys"]] == ["laptop"]
    assert run(app, ["revoke", number, "--file", str(file)]).exit_code == 0
    assert run(app, ["revoke", number, "--file", str(file)]).exit_code == 1
    with pytest.raises(Unauthenticated):
        Access(file).admit(f"Bearer {secret}")


def test_a_limit_is_for_a_tenant_that_exists(file: Path) -> None:
    limit = ["limit", "bogus", "--file", str(file), "--streams", "1"]
    told = CliRunner().invoke(app, limit)
    assert (told.exit_code, told.output) == (
        1,
        "no tenant 'bogus'; there are none: `millstream keys create` makes one\n",
    )
    create(file, "acme")
    create(file, "books")
    told = CliRunner().invoke(app, limit)
    assert (told.exit_code, told.output) == (1, "no tenant 'bogus'; there are acme, books\n")
    assert set(read(file).tenants) == {"acme", "books"}


def test_nats_keys_are_made_once_for_each_role(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    run = CliRunner().invoke
    made = run(app, ["nats", str(folder)])
    assert made.exit_code == 0, made.output
    public = dict(line.split("=") for line in (folder / "nats.env").read_text().splitlines())
    assert sorted(public) == ["GATEWAY_NKEY", "WATCHER_NKEY", "WORKER_NKEY"]
    for role in ("gateway", "worker", "watcher"):
        seed = folder / role / "nats.seed"
        assert seed.stat().st_mode & 0o077 == 0
        key = nkeys.from_seed(bytearray(seed.read_bytes())).public_key.decode()
        assert public[f"{role.upper()}_NKEY"] == key
        assert seed.read_text() not in made.output
    assert run(app, ["nats", str(folder)]).exit_code == 1  # It overwrites nothing.


@pytest.mark.parametrize(
    "arguments",
    [["create", "a b"], ["limit", "acme", "--priority", "urgent"], ["revoke", "x"], ["list"]],
)
def test_the_command_line_says_what_is_wrong(file: Path, arguments: list[str]) -> None:
    told = CliRunner().invoke(app, [*arguments, "--file", str(file)])
    assert told.exit_code == 1
    assert "Traceback" not in told.output
