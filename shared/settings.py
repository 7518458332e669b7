"""Settings of a process: one frozen class each, built in `__main__` and passed down.

A value comes from a flag, else from the process's environment variable
(`MILLSTREAM_GATEWAY_NATS`), else, for what every process has, from the common one
(`MILLSTREAM_NATS`), else from the default. A bad value stops the start, and so does a variable of
the process that names no setting: `load` collects every problem as a line of name, value and what
is allowed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from shared.tls import client_context

COMMON_PREFIX = "MILLSTREAM_"
COMMON = frozenset({"nats", "nats_creds", "nats_nkey", "nats_user", "nats_password_file"}) | {
    "nats_ca",
    "nats_cert",
    "nats_key",
    "log_level",
    "log_format",
}
NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]
Port = Annotated[int, Field(ge=0, le=65535)]

_SCHEMES = ("nats", "tls", "ws", "wss")
_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
"""What Kubernetes and Docker set for a service of the same name: `millstream-gateway`, say."""


class SettingsError(Exception):
    """What is wrong with the settings, a line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _CommonSource(EnvSettingsSource):
    """The environment variables that all processes share."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings, env_prefix=COMMON_PREFIX)

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name in COMMON}


class ProcessSettings(BaseSettings):
    """What every process has."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)
    role: ClassVar[str] = "process"

    nats: Annotated[tuple[str, ...], NoDecode] = Field(
        ("nats://127.0.0.1:4222",), description="NATS servers, separated by commas", repr=False
    )
    nats_creds: Path | None = Field(None, description="a NATS credentials file (JWT and nkey)")
    nats_nkey: Path | None = Field(None, description="a file with an nkey's seed")
    nats_user: str | None = Field(None, description="a user, where NATS asks for one")
    nats_password_file: Path | None = Field(None, description="holds the user's password")
    nats_ca: Path | None = Field(None, description="authorities to trust (PEM), for tls:// URLs")
    nats_cert: Path | None = Field(None, description="a certificate (PEM) to show to NATS")
    nats_key: Path | None = Field(None, description="its private key (PEM)")
    metrics_port: Port | None = Field(
        None, description="serve Prometheus metrics here; 0 is any free port"
    )
    drain_grace: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="seconds that open work gets at a stop"
    )
    ready_file: Path | None = Field(None, description="written once the process is ready")
    log_level: LogLevel = Field("info", description="debug, info, warning or error")
    log_format: LogFormat = Field("console", description="console for people, json for machines")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the process's variables, then the common ones."""
        return (init_settings, env_settings, _CommonSource(settings_cls))

    @field_validator("nats", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(url.strip() for url in value.split(",") if url.strip())
        return value

    @field_validator("nats")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in _SCHEMES or not parts.hostname:
                raise ValueError("URLs like nats://HOST:4222, separated by commas")
        if not urls:
            raise ValueError("at least one URL like nats://HOST:4222")
        return urls

    @field_validator(
        "nats_creds", "nats_nkey", "nats_password_file", "nats_ca", "nats_cert", "nats_key"
    )
    @classmethod
    def _check_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("a file that exists")
        return path

    @field_validator("ready_file")
    @classmethod
    def _check_ready_file(cls, path: Path | None) -> Path | None:
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK)):
            raise ValueError("a file in a folder that exists and may be written to")
        return path

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def nats_connect(self) -> tuple[tuple[str, Any], ...]:
        """The options of nats-py's `connect`: credentials, TLS, the role's own inboxes.

        Raises:
            TlsError: A certificate, key or authority cannot be used.
        """
        options: list[tuple[str, Any]] = [("inbox_prefix", f"_INBOX_{self.role}")]
        if self.nats_nkey is not None:
            options.append(("nkeys_seed", str(self.nats_nkey)))
        if self.nats_ca is not None or self.nats_cert is not None:
            context = client_context(ca=self.nats_ca, certificate=self.nats_cert, key=self.nats_key)
            options.append(("tls", context))
        if self.nats_creds is not None:
            options.append(("user_credentials", str(self.nats_creds)))
        if self.nats_user is not None:
            options.append(("user", self.nats_user))
        if self.nats_password_file is not None:
            options.append(("password", self.nats_password_file.read_text().strip()))
        return tuple(options)


Settings = TypeVar("Settings", bound=ProcessSettings)


def load(cls: type[Settings], flags: Mapping[str, Any]) -> Settings:
    """Build settings from flags (None is not given) and the environment.

    Raises:
        SettingsError: Some value is not allowed, or a variable of the process names no setting.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    problems = list(_unknown(cls))
    try:
        settings = cls(**given)
    except ValidationError as error:
        problems += [_problem(cls, one, given) for one in error.errors()]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def load_or_exit(cls: type[Settings], flags: Mapping[str, Any]) -> Settings:
    """As `load`, but a problem ends the process with its lines and code 2."""
    try:
        return load(cls, flags)
    except SettingsError as error:
        exit_with(error)


def exit_with(error: SettingsError) -> NoReturn:
    """Print the problems and end with code 2."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    raise SystemExit(2)


def _problem(cls: type[ProcessSettings], error: ErrorDetails, given: Mapping[str, Any]) -> str:
    if not error["loc"]:  # Of settings together, which the message names.
        return _allowed(error["msg"])
    source = _source(cls, str(error["loc"][0]), given)
    return f"{source}: {_shown(error['input'])} is not allowed: {_allowed(error['msg'])}"


def _unknown(cls: type[ProcessSettings]) -> Iterator[str]:
    """A line for each variable that begins as the process's do and is none."""
    prefix = cls.model_config.get("env_prefix", "").upper()
    known = {field.upper() for field in cls.model_fields}
    for name, value in os.environ.items():
        given = name.upper().removeprefix(prefix)
        if not prefix or given == name.upper() or given in known:
            continue
        if _LINK.search(name) or value.startswith(("tcp://", "udp://", "sctp://")):
            continue
        near = get_close_matches(given, known, 1)
        hint = f": is it {prefix}{near[0]}?" if near else "; --help lists them"
        yield f"{name}: no such setting{hint}"


def _source(cls: type[ProcessSettings], field: str, given: Mapping[str, Any]) -> str:
    """How the user named the value: a flag or an environment variable."""
    if field in given or field not in cls.model_fields:
        return "--" + field.rstrip("s" if field == "engine_args" else "").replace("_", "-")
    own = f"{cls.model_config.get('env_prefix', '')}{field}".upper()
    common = f"{COMMON_PREFIX}{field}".upper()
    return common if own not in os.environ and common in os.environ else own


def _shown(value: object) -> str:
    """A value for people, with the passwords of URLs hidden."""
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        value = ",".join(str(item) for item in value)
    return without_password(repr(str(value)))


def without_password(urls: str) -> str:
    """One or several URLs with the user and the password hidden."""
    return re.sub(r"(?<=//).*@", "***@", urls)


def _allowed(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").replace("should", "must")
