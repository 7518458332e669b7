"""The file of API keys and tenants: JSON, written by `millstream keys`, read by gateways.

{"tenants": {"acme": {"requests_per_second": 10, "models": ["tiny-stories"]}},
 "keys": [{"id": "4c1f0a9b", "tenant": "acme", "hash": "...", "created": "...", "note": "laptop"}]}

A key is `ms_<id>_<secret>` with 256 random bits, so that one round of SHA-256 is all the hashing it
needs; the file holds the hash. What is in it is checked when it is read, all at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.access.tenants import PRIORITIES, Limits, Priority

TENANT = r"^[A-Za-z0-9_.-]{1,64}$"
_KEY = re.compile(r"ms_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")


class KeyFileError(ValueError):
    """The file cannot be read or is not as it must be; says where."""


class _Tenant(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    request_burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    tokens_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    token_burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    streams: Annotated[int, Field(ge=1)] | None = None
    models: tuple[str, ...] = ()
    priorities: tuple[Priority, ...] = PRIORITIES


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    tenant: str = Field(pattern=TENANT)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    created: datetime
    expires: datetime | None = None
    note: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenants: dict[Annotated[str, Field(pattern=TENANT)], _Tenant] = {}
    keys: list[_Key] = []


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the file knows it.

    Attributes:
        id: Its public part.
        tenant: Whose.
        digest: SHA-256 of the whole key, in hex.
        created: When.
        expires: From when on it is refused, or None.
        note: What it is for.
    """

    id: str
    tenant: str
    digest: str = field(repr=False)
    created: datetime
    expires: datetime | None = None
    note: str = ""


@dataclass(slots=True)
class KeyBook:
    """All keys and tenants.

    Attributes:
        tenants: Limits by name; every key's tenant is in it.
        keys: By id.
    """

    tenants: dict[str, Limits] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)

    def find(self, secret: str, now: datetime) -> Key | None:
        """The key that a caller showed, if it is known and has not expired."""
        shape = _KEY.fullmatch(secret)
        key = self.keys.get(shape.group(1)) if shape else None
        if key is None or not hmac.compare_digest(key.digest, digest(secret)):
            return None
        return None if key.expires is not None and key.expires <= now else key

    def create(self, tenant: str, *, note: str = "", expires: datetime | None = None) -> str:
        """Make a key and return it: the only time that it can be seen.

        Raises:
            KeyFileError: No such tenant.
        """
        if tenant not in self.tenants:
            raise KeyFileError(f"no tenant {tenant!r}")
        number = secrets.token_hex(4)
        while number in self.keys:
            number = secrets.token_hex(4)
        secret = f"ms_{number}_{secrets.token_urlsafe(32)}"
        created = datetime.now(UTC).replace(microsecond=0)
        self.keys[number] = Key(number, tenant, digest(secret), created, expires, note)
        return secret

    def revoke(self, number: str) -> Key:
        """Remove a key by its id.

        Raises:
            KeyFileError: There is none.
        """
        try:
            return self.keys.pop(number)
        except KeyError:
            raise KeyFileError(f"no key {number!r}") from None


def digest(secret: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read(path: Path) -> KeyBook:
    """Read the file.

    Raises:
        KeyFileError: It cannot be read, or something in it is wrong.
    """
    try:
        told = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise KeyFileError(f"{path}: {place}: {problem['msg']}") from None
    book = KeyBook({name: Limits(**one.model_dump()) for name, one in told.tenants.items()})
    for one in told.keys:
        if one.tenant not in book.tenants:
            raise KeyFileError(f"{path}: key {one.id} names no tenant of the file: {one.tenant!r}")
        if one.id in book.keys:
            raise KeyFileError(f"{path}: two keys have the id {one.id}")
        expires = None if one.expires is None else _aware(one.expires)
        key = Key(one.id, one.tenant, one.hash, _aware(one.created), expires, one.note)
        book.keys[one.id] = key
    return book


@contextmanager
def changing(path: Path) -> Iterator[KeyBook]:
    """Read the file, or begin one, and write it back in one step; one writer at a time.

    Raises:
        KeyFileError: It is not as it must be.
    """
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = read(path) if path.exists() else KeyBook()
        yield book
        _write(path, book)


def _write(path: Path, book: KeyBook) -> None:
    default = asdict(Limits())
    told = {
        "tenants": {
            name: {key: value for key, value in asdict(one).items() if value != default[key]}
            for name, one in sorted(book.tenants.items())
        },
        "keys": [
            {
                "id": key.id,
                "tenant": key.tenant,
                "hash": key.digest,
                "created": key.created.isoformat(),
                **({"expires": key.expires.isoformat()} if key.expires is not None else {}),
                **({"note": key.note} if key.note else {}),
            }
            for key in book.keys.values()
        ],
    }
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    mode, owner = 0o600, None
    if path.exists():
        known = path.stat()
        mode, owner = known.st_mode & 0o777, (known.st_uid, known.st_gid)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write(json.dumps(told, indent=2) + "\n")
    if owner is not None and os.geteuid() == 0:
        os.chown(partial, *owner)
    partial.replace(path)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
