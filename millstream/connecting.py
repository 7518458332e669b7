"""The options of every command that calls a gateway."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Target: TypeAlias = Annotated[
    str, typer.Option(envvar="MILLSTREAM_TARGET", help="The gateway, as HOST:PORT.")
]
ApiKey: TypeAlias = Annotated[
    str | None, typer.Option(envvar="MILLSTREAM_API_KEY", help="Sent as a bearer token.")
]
Tls: TypeAlias = Annotated[
    bool, typer.Option("--tls", help="Encrypt; the system's authorities decide.")
]
