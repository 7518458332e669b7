"""`App`: functions become models."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from shared.typed import alias_name, service_name
from workers.app.annotations import Annotations
from workers.app.batches import BatchSpec
from workers.app.context import State
from workers.app.defaults import check_defaults
from workers.app.middleware import Middleware
from workers.app.signatures import ModelSpec, Reading, read, signature

F = TypeVar("F", bound=Callable[..., Any])
Lifespan = Callable[["App"], Any]

ASYNC_CONCURRENCY = 256


class App:
    """Functions, and what they share.

    Args:
        name: For logs.
        lifespan: Takes the app; an async generator that yields once, or gives an async context
            manager. Entered before the first call, left after the last, once a process.
        middleware: What runs around every call, the outermost first.

    Attributes:
        models: The functions by served name, `echo@1`.
        state: What functions and lifespan share.
        middleware: What runs around every call.
    """

    def __init__(
        self,
        name: str = "",
        *,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.name = name
        self.models: dict[str, ModelSpec] = {}
        self.state = State()
        self.middleware: list[Middleware] = list(middleware)
        self._lifespan = lifespan

    def model(
        self,
        name: str,
        version: str = "1",
        *,
        streaming: bool | None = None,
        batch: bool = False,
        max_batch: int | None = None,
        target_ms: float | None = None,
        idempotent: bool = False,
        wait: bool = False,
        default: bool = False,
        concurrency: int | None = None,
    ) -> Callable[[F], F]:
        """Serve a function, or a class with `__call__` and perhaps `load`; it stays as it is.

        Args:
            name: What clients call.
            version: Several may be served side by side.
            streaming: Whether it yields items: a generator does. Only checked.
            batch: Whether it takes many calls at once: each parameter is a list with an item a
                call, or a tensor with the calls along axis 0, and so is the result.
            max_batch: Items at once, at most, with `batch`; 128.
            target_ms: What a call should take, with `batch`, at most: it bounds how large batches
                grow; 100.
            idempotent: Whether it may run again, where a worker died in the middle.
            wait: Whether calls wait in the queue while no worker is there.
            default: Whether this version is meant where none is named.
            concurrency: Calls at once; 256, or for sync functions 2 a core and at least 8.

        Raises:
            TypeError: The function cannot be served as it is; says what to change.
            ValueError: The name and version are taken.
        """
        if callable(name):
            given = getattr(name, "__name__", "name")
            raise TypeError(
                f'{getattr(name, "__qualname__", name)}: write @app.model("{given}"), with the '
                "name that clients call"
            )

        def decorate(target: F) -> F:
            names = dict(sys._getframe(1).f_locals)
            where = f"model {name!r}, {getattr(target, '__qualname__', repr(target))}"
            reading = read(target, where, names, batch=batch)
            if streaming is not None and streaming is not reading.streaming:
                does = "it yields items" if reading.streaming else "it returns once: use yield"
                raise TypeError(f"{where}: streaming={streaming}, but {does}")
            fallback = ASYNC_CONCURRENCY if reading.is_async else max(8, 2 * (os.cpu_count() or 1))
            at_once = fallback if concurrency is None else concurrency
            if at_once < 1:
                raise TypeError(f"{where}: concurrency={at_once}: want at least 1")
            described = signature(reading, target, name, version, default=default, where=where)
            check_defaults(target, reading, described, Annotations(where, names))
            self._add(
                ModelSpec(
                    target=target,
                    signature=described,
                    reading=reading,
                    is_class=inspect.isclass(target),
                    concurrency=1 if batch else at_once,
                    idempotent=idempotent,
                    wait=wait,
                    batch=_batch(where, reading, batch, max_batch, target_ms, concurrency),
                ),
                where,
            )
            return target

        return decorate

    def add_middleware(self, middleware: Middleware) -> None:
        """Run it around every call, within those added before."""
        self.middleware.append(middleware)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Enter the lifespan it was given."""
        if self._lifespan is None:
            yield
            return
        given = self._lifespan(self)
        made = (
            contextlib.asynccontextmanager(lambda: given)() if inspect.isasyncgen(given) else given
        )
        async with made:
            yield

    def _add(self, model: ModelSpec, where: str) -> None:
        if model.served_name in self.models:
            raise ValueError(f"{where}: {model.served_name} is there already: give it a version")
        for other in self.models.values():
            same = model.signature.name == other.signature.name
            service = service_name if same else alias_name  # Names alike share it in any version.
            if service(model.signature) == service(other.signature):
                raise TypeError(
                    f"{where}: its service would be {service(model.signature)}, as is that of "
                    f"{other.served_name}: choose another {'version' if same else 'name'}"
                )
            if (
                model.signature.default
                and other.signature.default
                and other.signature.name == model.signature.name
            ):
                raise ValueError(f"{where}: {other.served_name} is the default version already")
        self.models[model.served_name] = model


def _batch(
    where: str,
    reading: Reading,
    batch: bool,
    max_batch: int | None,
    target_ms: float | None,
    concurrency: int | None,
) -> BatchSpec | None:
    """How calls run together, or None.

    Raises:
        TypeError: What was said of it makes no sense.
    """
    if not batch:
        if max_batch is not None or target_ms is not None:
            raise TypeError(f"{where}: max_batch and target_ms mean something with batch=True only")
        return None
    if concurrency is not None:
        raise TypeError(f"{where}: with batch=True one batch runs at a time: leave out concurrency")
    if max_batch is not None and max_batch < 1:
        raise TypeError(f"{where}: max_batch={max_batch}: want at least 1")
    if target_ms is not None and not 0 < target_ms < float("inf"):
        raise TypeError(f"{where}: target_ms={target_ms}: want milliseconds above 0")
    if not reading.slots:
        raise TypeError(f"{where}: with batch=True it takes at least one parameter")
    stacked = {
        slot.key: str(slot.node.python) for slot in reading.slots if slot.key in reading.stacked
    }
    return BatchSpec(stacked, max_batch or 0, (target_ms or 0) / 1000)
