"""`millstream up`: the stack in the foreground."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from millstream.stack import Stack
from millstream.stack_options import StackError, StackOptions

FAILED = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[Stack], Awaitable[None]]


def run_up(options: StackOptions) -> int:
    """Run the stack until told to stop; returns the exit code."""
    return run(options, _announce)


def run(options: StackOptions, work: Work, *, stay: bool = True) -> int:
    """Run the stack, do `work` once it is ready, and stay up unless told otherwise."""
    try:
        asyncio.run(_run(options, work, stay))
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0


async def _run(options: StackOptions, work: Work, stay: bool) -> None:
    stack = Stack(options, _echo)
    running = asyncio.create_task(_life(stack, work, stay))
    loop = asyncio.get_running_loop()
    told = 0

    def on_signal() -> None:
        nonlocal told
        told += 1
        if told == 1:
            running.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        await running
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        await _close(stack, lambda: told > 1)


async def _life(stack: Stack, work: Work, stay: bool) -> None:
    await stack.start()
    serving = asyncio.create_task(stack.serve())
    working = asyncio.ensure_future(work(stack))
    try:
        await asyncio.wait((serving, working), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            if not stay:
                return
        await serving
    finally:
        for task in (serving, working):
            task.cancel()
        await asyncio.gather(serving, working, return_exceptions=True)


async def _close(stack: Stack, hurry: Callable[[], bool]) -> None:
    """Drain in order; a second signal ends it at once."""
    closing = asyncio.create_task(stack.close())
    while not closing.done():
        await asyncio.wait((closing,), timeout=0.1)
        if hurry():
            stack.kill()
    await closing


def _echo(name: str, line: str) -> None:
    print(f"[{name}] {line}", file=sys.stderr, flush=True)


async def _announce(stack: Stack) -> None:
    http = f" and {stack.http} (HTTP)" if stack.http else ""
    for model in stack.models:
        print(f"millstream serves {model!r} on {stack.target} (gRPC){http}", flush=True)
    print(f"NATS: {stack.nats_url}. Ctrl-C drains and stops. Try:", flush=True)
    if "@" in stack.models[0]:
        name = stack.models[0].partition("@")[0]
        print(f"  millstream predict {name} KEY=VALUE --target {stack.target}", flush=True)
    else:
        print(f'  millstream generate "Once upon a time" --target {stack.target}', flush=True)
