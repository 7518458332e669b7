"""What the command line prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from millstream.answers import Model
from millstream.arguments import request_of, shown
from millstream.functions import Function, Seen, result_of
from millstream.generation import Generation
from millstream.reflected import Method
from shared.errors import InvalidRequest, MillstreamError

FAILED = 1
REFUSED = 2
INTERRUPTED = 130


async def stream_answer(answer: Generation, *, as_json: bool) -> None:
    """Print pieces as they come: text, or a JSON object a line with `event` first."""
    begun = False
    async with answer:
        async for delta in answer:
            if not as_json:
                print(delta.text, end="", flush=True)
                continue
            if not begun and answer.started is not None:
                _print_event("started", asdict(answer.started))
                begun = True
            _print_event("delta", asdict(delta))
    if not as_json:
        print()
    elif answer.finished is not None:
        _print_event("finished", asdict(answer.finished))


async def print_result(function: Function, pairs: Sequence[str], *, as_json: bool) -> None:
    """Call a function with `key=value` pairs; print its result, or its items as they come."""

    def build(method: Method) -> Any:
        return request_of(method, function.name, pairs)

    if not (await function.method()).streaming:
        print(shown(result_of(await function.reply(build)), as_json=as_json))
        return
    async with aclosing(function.replies(build, Seen())) as messages:
        async for message in messages:
            print(shown(result_of(message), as_json=as_json), flush=True)


def print_models(models: Sequence[Model], *, as_json: bool) -> None:
    """Print a table, or a JSON array."""
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2))
        return
    if not models:
        print("no models are served", file=sys.stderr)
        return
    table = Table(box=None, header_style="bold")
    for heading in ("NAME", "STATE", "WORKERS", "ENGINE", "CONTEXT", "DTYPE", "FEATURES"):
        table.add_column(heading)
    for model in models:
        table.add_row(
            model.name,
            model.state,
            str(model.workers),
            model.engine,
            str(model.context_length or "-"),
            model.dtype or "-",
            model.reason or " ".join(model.features),
        )
    Console().print(table)


@contextmanager
def telling() -> Iterator[None]:
    """Turn what goes wrong in a command into a line and an exit code."""
    try:
        yield
    except MillstreamError as error:
        hint = f" (try again in {error.retry_after:g} s)" if error.retry_after else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)
        raise SystemExit(REFUSED if isinstance(error, InvalidRequest) else FAILED) from None
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(REFUSED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stdout = None  # The reader left; nothing to flush.
        raise SystemExit(FAILED) from None


def _print_event(event: str, fields: dict[str, object]) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)
