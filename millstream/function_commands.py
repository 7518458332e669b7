"""`millstream predict` and `millstream proto`: served functions from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from millstream.connecting import ApiKey, Target, Tls

app = typer.Typer(pretty_exceptions_enable=False)  # They show local variables.

Name = Annotated[str, typer.Argument(help="A function, as NAME or NAME@VERSION.")]


@app.command()
def predict(
    name: Name,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Text as it is, the rest as JSON; KEY=@FILE reads a file, KEY=@- stdin.",
        ),
    ] = None,
    target: Target = "127.0.0.1:50051",
    deadline: Annotated[float | None, typer.Option(help="Seconds the call may take.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, standard or batch.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON value a line.")] = False,
    api_key: ApiKey = None,
    tls: Tls = False,
) -> None:
    """Call a served function; the items of a stream come as lines. Ctrl-C cancels it."""
    from millstream.client import Client
    from millstream.terminal import print_result, telling

    async def call() -> None:
        async with Client(target, tls=tls, api_key=api_key) as client:
            function = client.function(
                name,
                deadline=deadline,
                priority=priority,  # type: ignore[arg-type]  # Checked there.
            )
            await print_result(function, inputs or (), as_json=as_json)

    with telling():
        asyncio.run(call())


@app.command()
def proto(
    name: Name,
    out: Annotated[Path, typer.Option(help="The folder, made if there is none.")],
    target: Target = "127.0.0.1:50051",
    api_key: ApiKey = None,
    tls: Tls = False,
) -> None:
    """Write the .proto files of a served function, for clients in any language."""
    from millstream.client import Client
    from millstream.protos import protos, write
    from millstream.terminal import telling

    async def call() -> dict[str, str]:
        async with Client(target, tls=tls, api_key=api_key) as client:
            return await protos(client, name)

    with telling():
        for path in write(asyncio.run(call()), out):
            print(path)
