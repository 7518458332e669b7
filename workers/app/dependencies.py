"""`Depends`: parameters that other functions give, with their cleanup."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from workers.app.context import Context

if TYPE_CHECKING:
    from workers.app.annotations import Annotations

Kind = Literal["async", "sync", "async_generator", "generator"]
OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]


def Depends(function: Callable[..., Any]) -> Any:
    """Have another function give a parameter, for which this is the default.

    `def greet(user: User = Depends(current_user))`, or `user: Annotated[User, Depends(...)]`. The
    other function runs once a call, may be sync, async, or a generator that yields once and cleans
    up after the call, and may itself take a Context and other dependencies.
    """
    return Wanted(function)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `Depends` leaves at a parameter, as its default or within Annotated."""

    function: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Dependency:
    """A function that gives a parameter.

    Attributes:
        function: It.
        kind: How it is called.
        contexts: Its parameters that get the Context.
        dependencies: Those that other functions give.
    """

    function: Callable[..., Any]
    kind: Kind
    contexts: tuple[str, ...]
    dependencies: Mapping[str, Dependency]


def asked(
    parameter: inspect.Parameter, annotation: Any, annotations: Annotations
) -> Dependency | None:
    """The dependency that a parameter asks for, or None.

    Raises:
        TypeError: It takes what nobody gives.
    """
    wanted = [parameter.default]
    if get_origin(annotation) is Annotated:
        wanted.extend(get_args(annotation)[1:])
    for one in wanted:
        if isinstance(one, Wanted):
            return _plan(one.function, f"parameter {parameter.name!r}", annotations)
    return None


def form(function: Any) -> Kind:
    """How it is called: by its own code, or else by that of what it wraps."""
    for one in (function, inspect.unwrap(function)):
        if inspect.isasyncgenfunction(one):
            return "async_generator"
        if inspect.iscoroutinefunction(one):
            return "async"
        if inspect.isgeneratorfunction(one):
            return "generator"
    return "sync"


def _plan(function: Callable[..., Any], path: str, annotations: Annotations) -> Dependency:
    path = f"{path}, dependency {getattr(function, '__qualname__', function)}"
    hints = annotations.hints(
        vars(function).get("__init__", object) if inspect.isclass(function) else function, path
    )
    contexts: list[str] = []
    dependencies: dict[str, Dependency] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name)
        if annotation is Context:
            contexts.append(parameter.name)
        elif (dependency := asked(parameter, annotation, annotations)) is not None:
            dependencies[parameter.name] = dependency
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
        ):  # fmt: skip
            raise annotations.refuse(
                f"{path}, parameter {parameter.name!r}",
                "a dependency takes a Context and other dependencies only",
            )
    return Dependency(function, form(function), tuple(contexts), dependencies)


class Resolution:
    """The dependencies of one call, and their cleanup.

    Args:
        context: The call's.
        off_loop: Runs a sync function in a thread.
    """

    def __init__(self, context: Context, off_loop: OffLoop) -> None:
        self._context = context
        self._off_loop = off_loop
        self._values: dict[Callable[..., Any], Any] = {}
        self._entered: list[contextlib.AbstractAsyncContextManager[Any]] = []

    async def values(self, wanted: Mapping[str, Dependency]) -> dict[str, Any]:
        """What the functions give, by parameter."""
        return {name: await self._value(dependency) for name, dependency in wanted.items()}

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """Clean up, the last first; what then is the call's error."""
        while self._entered:
            manager = self._entered.pop()
            try:
                if error is None:
                    await manager.__aexit__(None, None, None)
                else:
                    await manager.__aexit__(type(error), error, error.__traceback__)
            except BaseException as raised:  # A user's cleanup; the others must have theirs.
                error = error or raised
        return error

    async def _value(self, dependency: Dependency) -> Any:
        function = dependency.function
        if function not in self._values:
            given = dict.fromkeys(dependency.contexts, self._context)
            given |= await self.values(dependency.dependencies)
            self._values[function] = await self._call(dependency, partial(function, **given))
        return self._values[function]

    async def _call(self, dependency: Dependency, function: Callable[[], Any]) -> Any:
        if dependency.kind == "async":
            return await function()
        if dependency.kind == "sync":
            return await self._off_loop(function)
        if dependency.kind == "async_generator":
            manager = contextlib.asynccontextmanager(function)()
        else:
            manager = _threaded(contextlib.contextmanager(function)(), self._off_loop)
        value = await manager.__aenter__()
        self._entered.append(manager)
        return value


@contextlib.asynccontextmanager
async def _threaded(manager: contextlib.AbstractContextManager[Any], off_loop: OffLoop) -> Any:
    """A sync context manager, entered and left in threads."""
    value = await off_loop(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        await off_loop(partial(manager.__exit__, type(error), error, error.__traceback__))
        raise
    await off_loop(partial(manager.__exit__, None, None, None))
