"""An app at work in this process: its lifespan, its objects, its threads."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

import structlog

from workers.app.app import App
from workers.app.binding import Binding
from workers.app.middleware import item_hooks
from workers.app.served import Served
from workers.app.signatures import ModelSpec
from workers.app.threads import Threads
from workers.engines.base import ModelLoadError

log = structlog.get_logger(__name__)

SPARE_THREADS = 32
"""For dependencies and load hooks, beyond those that sync functions have."""


class RunningApp:
    """What the engines of an app share; the first that enters starts it, the last one ends it.

    Args:
        app: The app.
        device: What `load` hooks get; found out where it is not given.
    """

    def __init__(self, app: App, *, device: str = "") -> None:
        self._app = app
        self._device = device
        self._inside = 0
        self._stop: asyncio.Event | None = None
        self._ready: asyncio.Future[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._threads: Threads | None = None
        self._objects: dict[Any, asyncio.Future[Callable[..., Any]]] = {}

    @property
    def threads(self) -> Threads:
        """Where sync functions run; there once it has started."""
        assert self._threads is not None
        return self._threads

    async def enter(self) -> None:
        """Start the app if nobody has.

        Raises:
            ModelLoadError: Its lifespan failed.
        """
        self._inside += 1
        if self._ready is None:
            loop = asyncio.get_running_loop()
            sync = sum(m.concurrency for m in self._app.models.values() if not m.reading.is_async)
            self._threads = Threads(sync + SPARE_THREADS)
            self._stop = asyncio.Event()
            self._ready = loop.create_future()
            self._life = loop.create_task(self._live(self._ready, self._stop))
        await asyncio.shield(self._ready)

    async def leave(self) -> None:
        """End the app if nobody else is in it."""
        self._inside -= 1
        if self._inside or self._life is None or self._stop is None:
            return
        if self._ready is not None and not self._ready.done():
            self._life.cancel()  # It was to end before it had begun.
        self._stop.set()
        life, self._life, self._ready = self._life, None, None
        self._objects.clear()
        await asyncio.gather(life, return_exceptions=True)
        self.threads.close()

    async def served(self, model: ModelSpec) -> Served:
        """A function, ready to be called.

        Raises:
            ModelLoadError: Its class cannot be made, or its load hook failed.
        """
        chain = tuple(self._app.middleware)
        return Served(
            model, await self._target(model), Binding(model), chain, item_hooks(chain),
            self._app.state, self.threads,
        )  # fmt: skip

    async def _live(self, ready: asyncio.Future[None], stop: asyncio.Event) -> None:
        """The lifespan, entered and left in one task, as cancel scopes want it."""
        try:
            async with self._app.lifespan():
                if not ready.done():
                    ready.set_result(None)
                await stop.wait()
        except Exception as error:  # The user's lifespan.
            log.error("lifespan_failed", exc_info=error)
            if not ready.done():
                ready.set_exception(
                    ModelLoadError(
                        f"the app's lifespan failed: {type(error).__name__}; see the worker's log"
                    )
                )

    async def _target(self, model: ModelSpec) -> Callable[..., Any]:
        if not model.is_class:
            return model.target
        if model.target not in self._objects:
            loading = asyncio.get_running_loop().create_task(self._load(model))
            self._objects[model.target] = loading
        return await asyncio.shield(self._objects[model.target])

    async def _load(self, model: ModelSpec) -> Callable[..., Any]:
        """Make the object of a class and call its load hook, off the loop where it is sync."""
        returned, made = await self.threads.run(model.target)
        if returned and (load := getattr(made, "load", None)) is not None:
            given = {"device": self._device or _device()} if model.reading.takes_device else {}
            if inspect.iscoroutinefunction(load):
                try:
                    await load(**given)
                except Exception as error:  # The user's hook.
                    returned, made = False, error
            else:
                returned, result = await self.threads.run(lambda: load(**given))
                made = made if returned else result
        if returned:
            return made  # type: ignore[no-any-return]
        log.error("load_failed", model=model.served_name, exc_info=made)
        raise ModelLoadError(
            f"{model.served_name} did not load: {type(made).__name__}; see the worker's log"
        )


def _device() -> str:
    """The best there is, for those who have imported torch."""
    torch: Any = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
