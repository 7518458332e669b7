"""`millstream keys`: API keys in the file that gateways read, and NATS keys for each role."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.access.keys import KeyBook, KeyFileError, changing, read
from gateway.access.tenants import PRIORITIES, Limits

app = typer.Typer(
    name="keys",
    help="API keys and what their tenants may do. Gateways read the file again by themselves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # They show local variables, and with them keys.
)

File = Annotated[
    Path,
    typer.Option(envvar="MILLSTREAM_GATEWAY_API_KEYS", help="The file, made if there is none."),
]
Tenant = Annotated[str, typer.Argument(help="Letters, digits, . _ and -.")]
Rate = Annotated[float | None, typer.Option(min=0, help="0 is no limit.")]
DEFAULT_FILE = Path("keys.json")
ROLES = ("gateway", "worker", "watcher")
"""Those of deploy/nats/roles.conf."""


@app.command()
def create(
    tenant: Tenant,
    file: File = DEFAULT_FILE,
    note: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0, help="Until it expires.")] = None,
) -> None:
    """Make a key and print it; it cannot be shown again. A new tenant has no limits."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _told(), changing(file) as book:
        book.tenants.setdefault(tenant, Limits())
        _check(tenant)
        secret = book.create(tenant, note=note, expires=expires)
    print(secret)


@app.command("list")
def list_(
    file: File = DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
) -> None:
    """List tenants with their limits, and keys without their secrets."""
    with _told():
        book = read(file)
    if as_json:
        print(json.dumps(_told_of(book), indent=2))
        return
    for name, limits in sorted(book.tenants.items()):
        print(f"{name}  {_limits(limits)}")
        for key in book.keys.values():
            if key.tenant == name:
                until = f", until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else ""
                note = f"  {key.note}" if key.note else ""
                print(f"  {key.id}  since {key.created:%Y-%m-%d}{until}{note}")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")],
    file: File = DEFAULT_FILE,
) -> None:
    """Revoke a key; gateways refuse it within a second, what runs goes on."""
    with _told(), changing(file) as book:
        gone = book.revoke(key)
    print(f"revoked {gone.id} of {gone.tenant}")


@app.command()
def limit(
    tenant: Tenant,
    file: File = DEFAULT_FILE,
    requests_per_second: Rate = None,
    request_burst: Rate = None,
    tokens_per_second: Rate = None,
    token_burst: Rate = None,
    streams: Annotated[int | None, typer.Option(min=0, help="At a time; 0 is no limit.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="May be used; repeatable; '*' is all.")
    ] = None,
    priority: Annotated[
        list[str] | None, typer.Option(help="May be asked for; repeatable; '*' is all.")
    ] = None,
) -> None:
    """Say what a tenant may do, at each gateway; what is not given stays."""
    rates = {
        "requests_per_second": requests_per_second,
        "request_burst": request_burst,
        "tokens_per_second": tokens_per_second,
        "token_burst": token_burst,
        "streams": streams,
    }
    changes: dict[str, Any] = {
        name: value or None for name, value in rates.items() if value is not None
    }
    if model:
        changes["models"] = () if "*" in model else tuple(model)
    if priority:
        changes["priorities"] = PRIORITIES if "*" in priority else tuple(priority)
    with _told(), changing(file) as book:
        _check(tenant)
        unknown = set(changes.get("priorities", ())) - set(PRIORITIES)
        if unknown:
            raise KeyFileError(f"priority {unknown.pop()!r} is none of {', '.join(PRIORITIES)}")
        if tenant not in book.tenants:
            there = ", ".join(sorted(book.tenants)) or "none: `millstream keys create` makes one"
            raise KeyFileError(f"no tenant {tenant!r}; there are {there}")
        book.tenants[tenant] = replace(book.tenants[tenant], **changes)
        limits = book.tenants[tenant]
    print(f"{tenant}  {_limits(limits)}")


@app.command()
def nats(
    folder: Annotated[Path, typer.Argument(help="Made if missing.")] = Path("secrets"),
) -> None:
    """Make a NATS key for each role: FOLDER/ROLE/nats.seed, and the public ones in nats.env."""
    import nkeys

    public = {}
    with _told():
        for role in ROLES:
            file = folder / role / "nats.seed"
            file.parent.mkdir(parents=True, exist_ok=True)
            seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(seed)
            public[role] = nkeys.from_seed(bytearray(seed)).public_key.decode()
        lines = [f"{role.upper()}_NKEY={key}" for role, key in public.items()]
        (folder / "nats.env").write_text("\n".join(lines) + "\n")
    print(f"made {', '.join(ROLES)} in {folder}; nats-server needs {folder / 'nats.env'}")


def _limits(limits: Limits) -> str:
    default = asdict(Limits())
    told = {name: value for name, value in asdict(limits).items() if value != default[name]}
    parts = [
        f"{name}={','.join(value) if isinstance(value, tuple) else format(value, 'g')}"
        for name, value in told.items()
    ]
    return " ".join(parts) or "no limits"


def _told_of(book: KeyBook) -> dict[str, Any]:
    return {
        "tenants": {name: asdict(limits) for name, limits in sorted(book.tenants.items())},
        "keys": [
            {
                "id": key.id,
                "tenant": key.tenant,
                "created": key.created.isoformat(),
                "expires": key.expires.isoformat() if key.expires is not None else None,
                "note": key.note,
            }
            for key in book.keys.values()
        ],
    }


def _check(tenant: str) -> None:
    allowed = tenant.replace("_", "").replace(".", "").replace("-", "")
    if not (allowed.isascii() and allowed.isalnum() and len(tenant) <= 64):
        raise KeyFileError(f"tenant {tenant!r}: up to 64 letters, digits, . _ and -")


@contextmanager
def _told() -> Iterator[None]:
    """End with the problem as one line and code 1."""
    try:
        yield
    except (KeyFileError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
