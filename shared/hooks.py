"""Hooks around a call, at a client or at a worker: each is told of the end, whatever others do."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def settled(result: Any) -> Any:
    """What a hook returned, awaited where it is async."""
    return await result if inspect.isawaitable(result) else result


async def finish(
    entered: Sequence[T],
    error: BaseException | None,
    after: Callable[[T], Any],
    on_error: Callable[[T, BaseException], Any],
) -> BaseException | None:
    """Run `after` or `on_error` of each, the innermost first.

    Args:
        entered: Whose hooks ran before the call, the outermost first.
        error: What the call ended with.
        after: Tells one that the call went well.
        on_error: Tells one of an error; returns another to take its place, or None.

    Returns:
        What then is the call's error.
    """
    for one in reversed(entered):
        try:
            if error is None:
                await settled(after(one))
            else:
                error = await settled(on_error(one, error)) or error
        except (Exception, asyncio.CancelledError) as raised:  # A user's hook; others need theirs.
            error = raised
    return error


def outcome(error: BaseException) -> str:
    """An error's name in logs and metrics."""
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
