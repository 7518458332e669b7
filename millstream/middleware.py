"""Middleware of a client: what happens around each of its calls.

    client = Client(target, middleware=[CallLogging(), CallMetrics(), CallTraces()])

It runs around `predict`, `stream`, `generate` and `complete`, the outermost first going in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shared.hooks import finish, settled

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Call:
    """A call of a client.

    Attributes:
        name: The function or model, as the caller named it; "" where the caller named no model.
        request_id: As given; a generated one is known with a stream's first item, else "".
        metadata: What is sent with it; `before` may change it, its keys are lower case.
        streaming: Whether it gives items one after the other.
        scope: Keeps what belongs to a call.
        started: When it began, by the monotonic clock.
        items: So many it gave.
    """

    name: str
    request_id: str
    metadata: dict[str, str]
    streaming: bool
    scope: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    items: int = 0


class Middleware:
    """Override what is needed; an object with any of these methods will do too.

    `before`, `after` and `on_error` may be async; where they are not, they run on the event loop
    (a `SyncClient`'s own thread) and must not block.
    """

    def before(self, call: Call) -> Awaitable[None] | None:
        """Before anything is sent; what is raised refuses the call."""

    def on_item(self, call: Call, item: Any) -> Any:
        """For each item or delta of a stream, or the one result; the caller gets what it returns.

        Never async.
        """
        return item

    def after(self, call: Call) -> Awaitable[None] | None:
        """After the call has ended well."""

    def on_error(
        self, call: Call, error: BaseException
    ) -> Awaitable[BaseException | None] | BaseException | None:
        """After it failed, or was cancelled or its stream left (asyncio.CancelledError).

        Returns:
            Another error for the caller, or None; a cancellation stays one.
        """


ClientMiddleware = Middleware
"""Its name in `millstream`, where `Middleware` is the one of an app."""


async def called(
    middleware: Sequence[object], call: Call, work: Callable[[], Awaitable[Any]]
) -> Any:
    """The result of a call, with middleware around it."""
    entered: list[object] = []
    try:
        await _begin(middleware, call, entered)
        result = _given(_item_hooks(middleware), call, await work())
    except (Exception, asyncio.CancelledError) as error:  # Hooks are told of whatever ended it.
        await _fail(entered, call, error)
        raise
    await _end(entered, call)
    return result


async def streamed(
    middleware: Sequence[object],
    call: Call,
    pieces: Callable[[], AsyncGenerator[T, None]],
    request_id: Callable[[], str],
) -> AsyncGenerator[T, None]:
    """The items of a call, with middleware around it.

    Args:
        middleware: The outermost first.
        call: The call.
        pieces: Begins it, once `before` has seen it.
        request_id: Its name, which is known with the first item.
    """
    entered: list[object] = []
    hooks = _item_hooks(middleware)
    try:
        await _begin(middleware, call, entered)
        async with aclosing(pieces()) as source:
            async for item in source:
                call.request_id = request_id() or call.request_id
                yield _given(hooks, call, item)
    except GeneratorExit:
        await _finish(entered, call, asyncio.CancelledError("the stream was left"))
        raise
    except (Exception, asyncio.CancelledError) as error:  # Hooks are told of whatever ended it.
        await _fail(entered, call, error)
        raise
    await _end(entered, call)


def _item_hooks(middleware: Sequence[object]) -> tuple[Callable[[Call, Any], Any], ...]:
    """The hooks for items that somebody has written, the innermost first."""
    return tuple(
        one.on_item for one in reversed(middleware)
        if hasattr(one, "on_item") and getattr(type(one), "on_item", None) is not Middleware.on_item
    )  # fmt: skip


def _given(hooks: Sequence[Callable[[Call, Any], Any]], call: Call, item: Any) -> Any:
    call.items += 1
    for hook in hooks:
        item = hook(call, item)
    return item


async def _begin(middleware: Sequence[object], call: Call, entered: list[object]) -> None:
    call.started = time.monotonic()
    for one in middleware:
        await settled(_run(one, "before", call))
        entered.append(one)


async def _end(entered: Sequence[object], call: Call) -> None:
    error = await _finish(entered, call, None)
    if error is not None:
        raise error


async def _fail(entered: Sequence[object], call: Call, error: BaseException) -> None:
    """Raise what is to be told instead of the error, if anything is."""
    other = await _finish(entered, call, error)
    if other is not None and other is not error and not isinstance(error, asyncio.CancelledError):
        raise other from error


async def _finish(
    entered: Sequence[object], call: Call, error: BaseException | None
) -> BaseException | None:
    """Run `after` or `on_error`, the innermost first; returns what then is the call's error."""
    return await finish(
        entered,
        error,
        lambda one: _run(one, "after", call),
        lambda one, error: _run(one, "on_error", call, error),
    )


def _run(one: object, hook: str, *arguments: Any) -> Any:
    method = getattr(one, hook, None)
    return None if method is None else method(*arguments)
