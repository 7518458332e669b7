"""Command-line flags of a settings class: `grpc_port` becomes `--grpc-port`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pydantic.fields import FieldInfo

from shared.settings import Settings, load_or_exit

_REPEATABLE = {"engine_args": "engine_arg"}


def parse(
    cls: type[Settings], argv: Sequence[str] | None, *, prog: str, description: str
) -> Settings:
    """Read flags and environment; a problem prints its line and exits with code 2."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"Every flag is also an environment variable: {_variable(cls, 'log_level')} and so "
        "on; MILLSTREAM_NATS and MILLSTREAM_LOG_LEVEL hold for every process.",
        allow_abbrev=False,
    )
    for name, field in cls.model_fields.items():
        repeatable = name in _REPEATABLE
        parser.add_argument(
            "--" + _REPEATABLE.get(name, name).replace("_", "-"),
            dest=name,
            metavar="KEY=VALUE" if repeatable else name.rsplit("_", 1)[-1].upper(),
            action="append" if repeatable else "store",
            help=_help(field),
        )
    return load_or_exit(cls, vars(parser.parse_args(argv)))


def _variable(cls: type[Settings], name: str) -> str:
    return f"{cls.model_config.get('env_prefix', '')}{name}".upper()


def _help(field: FieldInfo) -> str:
    default: Any = None if field.default_factory else field.default
    if isinstance(default, tuple):
        default = ",".join(default)
    text = field.description or ""
    told = "" if default is None else f" (default {default})"
    return (text + told).replace("%", "%%")
