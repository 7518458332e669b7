"""`millstream demo`: three prompts at once, live, through the whole stack."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from millstream.client import Client
from millstream.local import run
from millstream.stack import Stack
from millstream.stack_options import StackError, StackOptions, check_port, http_is_installed
from shared.errors import Unauthenticated

PROMPTS = (
    "Once upon a time there was a little",
    "One day a girl found a red",
    "The old dog went to the river and",
)
MAX_TOKENS = 120
HTTP_PORT = 8080
WIDE = 110
"""Columns from which on the answers stand side by side."""


@dataclass(slots=True)
class Answer:
    """One prompt and what came of it so far, in seconds since it was sent."""

    prompt: str
    text: str = ""
    tokens: int = 0
    first: float | None = None
    last: float = 0.0
    done: bool = False

    def measured(self) -> str:
        """TTFT and tokens/s, as far as known."""
        if self.first is None:
            return "waiting"
        told = f"TTFT {self.first * 1000:.0f} ms"
        told += f", {self.tokens / self.last:.0f} tokens/s"
        return f"{told}, {self.tokens} tokens"


def run_demo(*, engine: str, model: str | None, grpc_port: int, once: bool) -> int:
    """Start the stack, stream, say how to go on, and stay up unless `once`."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="millstream-demo-") as folder:
        options = StackOptions(
            engine=engine,
            model=model,
            grpc_port=_free_or_any(grpc_port, "--grpc-port", console),
            http_port=_free_or_any(HTTP_PORT, "", console) if http_is_installed() else None,
            nats_port=0,
            data_dir=Path(folder),
            drain_grace=5.0,
            log_level="warning",
        )
        console.print(f"starting nats-server, a gateway and a worker ({engine}) ...")
        began = time.monotonic()

        async def show(stack: Stack) -> None:
            console.print(f"ready after {time.monotonic() - began:.1f} s on {stack.target}\n")
            try:
                await _stream_all(stack, console)
            except Unauthenticated as error:
                raise StackError(f"{error}: put it into MILLSTREAM_API_KEY") from error
            _say_how(stack, console, once)

        return run(options, show, stay=not once)


def _free_or_any(port: int, flag: str, console: Console) -> int:
    try:
        check_port("127.0.0.1", port, flag)
    except StackError:
        console.print(f"port {port} is in use: taking a free one")
        return 0
    return port


async def _stream_all(stack: Stack, console: Console) -> None:
    answers = [Answer(prompt) for prompt in PROMPTS]
    async with stack.client() as client:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                redraw = asyncio.create_task(_redraw(live, answers))
                try:
                    await _ask_all(client, stack.models[0], answers)
                finally:
                    redraw.cancel()
            console.print(_panels(answers, console, whole=True))
        else:
            await _ask_all(client, stack.models[0], answers, console)
    for number, answer in enumerate(answers, start=1):
        console.print(f"{number}: {answer.measured()}", highlight=False)


async def _ask_all(
    client: Client, model: str, answers: list[Answer], lines: Console | None = None
) -> None:
    asking = [_ask(client, model, number, answer, lines) for number, answer in enumerate(answers)]
    await asyncio.gather(*asking)


async def _ask(
    client: Client, model: str, number: int, answer: Answer, lines: Console | None
) -> None:
    began = time.monotonic()
    pending = answer.prompt
    async for delta in client.generate(
        answer.prompt, model=model, max_tokens=MAX_TOKENS, temperature=0.7, seed=number
    ):
        answer.last = time.monotonic() - began
        if answer.first is None and delta.token_ids:
            answer.first = answer.last
        answer.text += delta.text
        answer.tokens += len(delta.token_ids)
        pending += delta.text
        if lines is not None and len(pending) > 60:
            pending = _print_words(lines, number, pending)
    answer.done = True
    if lines is not None and pending:
        lines.print(f"{number + 1}| {pending}", markup=False, highlight=False, soft_wrap=True)


def _print_words(lines: Console, number: int, text: str) -> str:
    """Print up to the last space; returns what is left."""
    words, _, rest = text.rpartition(" ")
    if not words:
        return text
    flat = " ".join(words.split())
    lines.print(f"{number + 1}| {flat}", markup=False, highlight=False, soft_wrap=True)
    return rest


async def _redraw(live: Live, answers: list[Answer]) -> None:
    while True:
        live.update(_panels(answers, live.console), refresh=True)
        await asyncio.sleep(0.05)


def _panels(answers: list[Answer], console: Console, *, whole: bool = False) -> RenderableType:
    """The answers side by side, or one below the other in a narrow terminal."""
    beside = console.width >= WIDE
    height = None if whole else max(5, (console.height - 1) // (1 if beside else len(answers)))
    panels = [
        Panel(
            Text.assemble((answer.prompt, "bold"), answer.text),
            subtitle=answer.measured(),
            border_style="green" if answer.done else "cyan",
            height=height if height is None else min(height, 16),
        )
        for answer in answers
    ]
    if not beside:
        return Group(*panels)
    grid = Table.grid(expand=True)
    for _ in panels:
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return grid


def _say_how(stack: Stack, console: Console, once: bool) -> None:
    if once:
        console.print("\nTo keep the stack up: make demo, or millstream up")
        return
    console.print(
        f"\nThe stack stays up until Ctrl-C. From another terminal:\n\n"
        f'  .venv/bin/millstream generate "Once upon a time" --target {stack.target}\n'
        f"  .venv/bin/millstream models --target {stack.target}\n\n"
        f"From Python:\n\n"
        f"  from millstream import SyncClient\n"
        f'  with SyncClient("{stack.target}") as client:\n'
        f'      for delta in client.generate("Once upon a time"):\n'
        f'          print(delta.text, end="", flush=True)\n{_say_http(stack)}',
        markup=False,
        highlight=False,
    )


def _say_http(stack: Stack) -> str:
    """How to go on with an OpenAI client, where HTTP is served."""
    if not stack.http:
        return ""
    body = json.dumps({"model": stack.models[0], "prompt": "Once upon a time", "stream": True})
    return (
        f"\nAs OpenAI's API, at {stack.http}/v1:\n\n"
        f"  curl -N {stack.http}/v1/completions -H 'content-type: application/json' \\\n"
        f"       -d '{body}'\n"
    )
