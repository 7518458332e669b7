"""Middleware: what happens around every call of an app's functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shared import hooks
from workers.app.context import Context

ItemHook = Callable[[Context, Any], Any]


class Middleware:
    """Override what is needed.

    `before`, `after` and `on_error` may be async; where they are not, they run on the event loop
    and must not block. `context.scope` keeps what belongs to a call.
    """

    def before(self, context: Context, inputs: dict[str, Any]) -> Awaitable[None] | None:
        """Before the function; what is raised refuses the call.

        Args:
            context: The call.
            inputs: Its arguments by name, which may be changed.
        """

    def on_item(self, context: Context, item: Any) -> Any:
        """For each item of a stream, or the one result; what it returns is sent instead.

        Runs where the function runs: for a sync one, in its thread.
        """
        return item

    def after(self, context: Context) -> Awaitable[None] | None:
        """After the function has ended well."""

    def on_error(
        self, context: Context, error: BaseException
    ) -> Awaitable[BaseException | None] | BaseException | None:
        """After it failed, or was cancelled (asyncio.CancelledError).

        Returns:
            Another error to be told instead, or None.
        """


def item_hooks(middleware: Sequence[Middleware]) -> tuple[ItemHook, ...]:
    """The hooks for items that somebody has overridden, the innermost first."""
    return tuple(
        one.on_item for one in reversed(middleware)
        if type(one).on_item is not Middleware.on_item
    )  # fmt: skip


async def begin(
    middleware: Sequence[Middleware],
    context: Context,
    inputs: dict[str, Any],
    entered: list[Middleware],
) -> None:
    """Run `before`, the outermost first; who let the call pass is noted in `entered`."""
    for one in middleware:
        await hooks.settled(one.before(context, inputs))
        entered.append(one)


async def finish(
    entered: Sequence[Middleware], context: Context, error: BaseException | None
) -> BaseException | None:
    """Run `after` or `on_error`, the innermost first; returns what then is the call's error."""
    return await hooks.finish(
        entered,
        error,
        lambda one: one.after(context),
        lambda one, error: one.on_error(context, error),
    )
