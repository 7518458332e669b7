"""The command `millstream`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from millstream.connecting import ApiKey, Target, Tls
from millstream.function_commands import app as functions
from millstream.keys import app as keys
from millstream.stack_options import StackOptions, default_data_dir, http_is_installed

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""These commands have the flags of their settings class, `--help` included."""

INTERRUPTED = 130

app = typer.Typer(
    name="millstream",
    help="Streaming model serving over NATS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # They show local variables, and with them prompts.
    add_completion=False,
)
app.add_typer(keys)
app.add_typer(functions)

Engine = Annotated[str, typer.Option(help="sim, torch or vllm.")]
ModelPath = Annotated[
    str | None,
    typer.Option("--model", help="A checkpoint directory or hub id; torch has a bundled one."),
]
ServedName = Annotated[
    str | None, typer.Option("--served-name", help="The model's name in requests.")
]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option("--engine-arg", metavar="KEY=VALUE", help="The engine's own settings."),
]
GrpcPort = Annotated[int, typer.Option(min=0, max=65535, help="0 is any free port.")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def up(
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:APP]", help="Serve the functions of this App instead of a model."
        ),
    ] = None,
    engine: Engine = "torch",
    model: ModelPath = None,
    served_name: ServedName = None,
    workers: Workers = 1,
    engine_arg: EngineArgs = None,
    grpc_host: Annotated[str, typer.Option(help="Where the gateway listens.")] = "127.0.0.1",
    grpc_port: GrpcPort = 50051,
    http_port: Annotated[
        int, typer.Option(min=-1, max=65535, help="HTTP; 0 is any free port, -1 is no HTTP.")
    ] = 8080,
    nats: Annotated[
        str | None, typer.Option(help="Use this server instead of an embedded one.")
    ] = None,
    nats_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the embedded server; 0 is any free port.")
    ] = 4222,
    data_dir: Annotated[
        Path | None, typer.Option(help="Holds queued requests and stack.json.")
    ] = None,
    drain_grace: Annotated[
        float, typer.Option(min=0, help="Seconds that open requests get at a stop.")
    ] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option(help="console or json.")] = "console",
) -> None:
    """Run the whole stack on this machine, until Ctrl-C."""
    from millstream.local import run_up

    options = StackOptions(
        app=app,
        engine=engine,
        model=model,
        served_name=served_name,
        workers=workers,
        engine_args=tuple(engine_arg or ()),
        grpc_host=grpc_host,
        grpc_port=grpc_port,
        http_port=http_port if http_port >= 0 and http_is_installed() else None,
        nats=nats,
        nats_port=nats_port,
        data_dir=data_dir or default_data_dir(),
        drain_grace=drain_grace,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(run_up(options))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the prompts.")] = False,
    engine: Engine = "torch",
    model: ModelPath = None,
    grpc_port: GrpcPort = 50051,
) -> None:
    """Stream three prompts at once through the whole stack, then stay up."""
    from millstream.demo import run_demo

    raise typer.Exit(run_demo(engine=engine, model=model, grpc_port=grpc_port, once=once))


@app.command(context_settings=PASS_ON, add_help_option=False)
def gateway(context: typer.Context) -> None:
    """Run one gateway (--help lists its flags)."""
    from gateway.__main__ import main as run

    raise typer.Exit(run(context.args, prog="millstream gateway"))


@app.command(context_settings=PASS_ON, add_help_option=False)
def worker(context: typer.Context) -> None:
    """Run one worker (--help lists its flags)."""
    from workers.__main__ import main as run

    raise typer.Exit(run(context.args, prog="millstream worker"))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to continue; - reads it from stdin.")],
    target: Target = "127.0.0.1:50051",
    model: Annotated[str, typer.Option(help="Needed where several are served.")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Ends the answer; repeatable.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, standard or batch.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds the answer may take.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send it as a user's message.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    api_key: ApiKey = None,
    tls: Tls = False,
) -> None:
    """Stream one generation to the terminal; Ctrl-C cancels it."""
    from millstream.client import Client
    from millstream.terminal import stream_answer, telling

    options = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "stop": stop or None,
        "priority": priority,
    }
    given = {name: value for name, value in options.items() if value is not None}
    text = sys.stdin.read() if prompt == "-" else prompt

    async def call() -> None:
        async with Client(target, tls=tls, api_key=api_key) as client:
            answer = client.generate(
                None if chat else text,
                messages=[("user", text)] if chat else None,
                model=model,
                deadline=deadline,
                **given,  # type: ignore[arg-type]  # Checked where the request is built.
            )
            await stream_answer(answer, as_json=as_json)

    with telling():
        asyncio.run(call())


@app.command()
def models(
    target: Target = "127.0.0.1:50051",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
    api_key: ApiKey = None,
    tls: Tls = False,
) -> None:
    """List the models that workers serve now."""
    from millstream.client import Client
    from millstream.terminal import print_models, telling

    async def call() -> None:
        async with Client(target, tls=tls, api_key=api_key) as client:
            print_models(await client.models(deadline=10.0), as_json=as_json)

    with telling():
        asyncio.run(call())


@app.command()
def top(
    nats: Annotated[
        str | None, typer.Option(help="Servers, separated by commas; MILLSTREAM_NATS.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show one picture and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long --once listens.")] = 1.0,
) -> None:
    """Watch models, workers, queues and gateways; Ctrl-C ends it."""
    from millstream.top import TopSettings, run_top
    from shared.settings import load_or_exit

    settings = load_or_exit(TopSettings, {"nats": nats})
    raise typer.Exit(run_top(settings, once=once, as_json=as_json, seconds=seconds))
