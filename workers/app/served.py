"""A function that is ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workers.app.binding import Binding
from workers.app.context import State
from workers.app.middleware import ItemHook, Middleware
from workers.app.signatures import ModelSpec
from workers.app.threads import Threads


@dataclass(frozen=True, slots=True)
class Served:
    """What calls of a function need.

    Attributes:
        model: What it is.
        target: What is called.
        binding: Its messages.
        middleware: What runs around it, the outermost first.
        item_hooks: What sees each item.
        state: The app's.
        threads: Where sync functions run.
    """

    model: ModelSpec
    target: Callable[..., Any]
    binding: Binding
    middleware: Sequence[Middleware]
    item_hooks: Sequence[ItemHook]
    state: State
    threads: Threads
