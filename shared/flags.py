"""Command-line flags of a settings class: `grpc_port` becomes `--grpc-port`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pydantic.fields import FieldInfo

from shared.settings import Settings, load_or_exit

_REPEATABLE = {"engine_args": "engine_arg"}
_POSITIONAL = {"app"}


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
        if name in _POSITIONAL:
            parser.add_argument(name, nargs="?", metavar=name.upper(), help=_help(field))
            continue
        flag = "--" + _REPEATABLE.get(name, name).replace("_", "-")
        if name in _REPEATABLE:
            parser.add_argument(
                flag, dest=name, metavar="KEY=VALUE", action="append", help=_help(field)
            )
        elif field.annotation is bool:
            parser.add_argument(
                flag, dest=name, action=argparse.BooleanOptionalAction, help=_help(field)
            )
        else:
            metavar = name.rsplit("_", 1)[-1].upper()
            parser.add_argument(flag, dest=name, metavar=metavar, help=_help(field))
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
