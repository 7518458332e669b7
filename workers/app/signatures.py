"""From a function or class to its model: signature, parameters, how it runs."""

from __future__ import annotations

import collections.abc as abc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from shared import typed
from shared.signature import Record, Signature
from workers.app import batches
from workers.app.annotations import Annotations
from workers.app.batches import BatchSpec
from workers.app.context import Context
from workers.app.dependencies import Dependency, Kind, asked, form
from workers.app.nodes import Declared, Node, Slot

_SYNC_STREAMS = (abc.Iterator, abc.Iterable, abc.Generator)
_ASYNC_STREAMS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a function's code and annotations say.

    Attributes:
        kind: How it is called.
        slots: Its parameters.
        output: What it returns or yields; None for nothing.
        output_optional: Whether that may be None.
        contexts: Parameters that get the Context.
        dependencies: Parameters that get what another function gives.
        takes_device: Whether its `load` takes a device.
        stacked: Parameters of a batch that come as one array.
    """

    kind: Kind
    slots: tuple[Slot, ...]
    output: Node | None
    output_optional: bool
    contexts: tuple[str, ...]
    dependencies: Mapping[str, Dependency]
    takes_device: bool
    stacked: tuple[str, ...] = ()

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return self.kind in ("async", "async_generator")

    @property
    def streaming(self) -> bool:
        """Whether it yields items."""
        return self.kind in ("generator", "async_generator")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A served function.

    Attributes:
        target: The function, or the class whose instances are called.
        signature: What it takes and gives.
        reading: What its code and annotations say.
        is_class: Whether `target` is a class.
        concurrency: Calls at once.
        idempotent: Whether it may run again where a worker died.
        wait: Whether calls may wait in the queue while no worker is there.
        batch: How calls run together; None for one by one.
    """

    target: Callable[..., Any]
    signature: Signature
    reading: Reading
    is_class: bool
    concurrency: int
    idempotent: bool
    wait: bool
    batch: BatchSpec | None

    @property
    def served_name(self) -> str:
        """`name@version`."""
        return self.signature.served_name


def read(
    target: Callable[..., Any], where: str, names: Mapping[str, Any], *, batch: bool = False
) -> Reading:
    """Read a function or class.

    Args:
        target: It.
        where: What to call it in errors.
        names: What annotations may name beyond their module.
        batch: Whether its annotations are about many items; what is read is about one.

    Raises:
        TypeError: It cannot be served as it is; says what to change.
    """
    annotations = Annotations(where, names)
    call: Any = target
    takes_device = False
    if inspect.isclass(target):
        call = target.__dict__.get("__call__") or getattr(target, "__call__", None)  # noqa: B004
        if not inspect.isfunction(call):
            raise annotations.refuse("the class", "has no __call__ method: define one")
        takes_device = _load(target, annotations)
    elif not inspect.isroutine(target):
        raise annotations.refuse(
            repr(target), "is no function, and no class with a __call__ method"
        )
    hints = annotations.hints(call, "its annotations")
    declared: list[Declared] = []
    contexts: list[str] = []
    dependencies: dict[str, Dependency] = {}
    parameters = list(inspect.signature(call).parameters.values())
    for parameter in parameters[1:] if inspect.isclass(target) else parameters:
        path = f"parameter {parameter.name!r}"
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise annotations.refuse(
                path, "*args, **kwargs and positional-only parameters have no name for a client: "
                "name each one"
            )  # fmt: skip
        annotation = hints.get(parameter.name)
        if batches.is_contexts(annotation) if batch else annotation is Context:
            contexts.append(parameter.name)
        elif (dependency := asked(parameter, annotation, annotations)) is not None:
            dependencies[parameter.name] = dependency
        elif parameter.name not in hints:
            raise annotations.refuse(path, "has no annotation: say what it is, such as str")
        else:
            declared.append(_declared(parameter, annotation, annotations, batch=batch))
    if "return" not in hints:
        raise annotations.refuse("the result", "has no annotation: say what it is, or -> None")
    slots = annotations.slots(declared, "parameter ")
    kind, result = _kind(call, hints["return"], annotations)
    output, optional = (None, False)
    if result is not type(None):
        if batch:
            streaming = kind in ("generator", "async_generator")
            result = batches.result(result, annotations, streaming=streaming)
        output, optional = annotations.result(result)
    stacked = [one.name for one in declared if batch and batches.is_tensor(hints[one.name])]
    return Reading(
        kind, slots, output, optional, tuple(contexts), dependencies, takes_device, tuple(stacked)
    )


def signature(
    reading: Reading, target: Any, name: str, version: str, *, default: bool, where: str
) -> Signature:
    """What is announced of it.

    Raises:
        TypeError: A name or type that cannot be served.
    """
    documentation = (inspect.getdoc(target) or "").strip().partition("\n")[0]
    described = Signature(
        name,
        version,
        Record("Inputs", tuple(slot.field for slot in reading.slots)),
        None if reading.output is None else reading.output.type,
        streaming=reading.streaming,
        default=default,
        summary=documentation[:500],
    )
    try:
        typed.dump(described)
    except ValueError as error:
        raise TypeError(f"{where}: {error}") from None
    return described


def _declared(
    parameter: inspect.Parameter, annotation: Any, annotations: Annotations, *, batch: bool
) -> Declared:
    empty = parameter.default is parameter.empty
    if batch:
        path = f"parameter {parameter.name!r}"
        if annotation is Context:
            raise annotations.refuse(path, "with batch=True there are many: write list[Context]")
        if not empty:
            raise annotations.refuse(
                path, "a default would be one for the whole batch: write list[T | None], and fill "
                "in where an item is None"
            )  # fmt: skip
        annotation = batches.item(annotation, path, annotations)
    return Declared(parameter.name, annotation, not empty, None if empty else parameter.default)


def _kind(call: Any, result: Any, annotations: Annotations) -> tuple[Kind, Any]:
    """How it is called, and what it returns or yields: `Iterator[T]` and `T` both yield T."""
    kind = form(call)
    bare = get_origin(result) or result
    asynchronous = bare in _ASYNC_STREAMS
    if not asynchronous and bare not in _SYNC_STREAMS:
        return kind, result
    if kind == "async":
        raise annotations.refuse("the result", "an async function that streams must yield")
    if kind == "sync":  # It makes an iterator, and has no yield of its own.
        kind = "async_generator" if asynchronous else "generator"
    elif asynchronous is not (kind == "async_generator"):
        right = "an AsyncIterator[T]" if kind == "async_generator" else "an Iterator[T]"
        raise annotations.refuse("the result", f"is {result}; this generator gives {right}")
    return kind, next(iter(get_args(result)), Any)


def _load(target: type, annotations: Annotations) -> bool:
    """Check a class's constructor and `load` hook; whether the hook takes a device."""
    for one in _required(vars(target).get("__init__")):
        raise annotations.refuse(f"__init__, parameter {one!r}", "must have a default")
    load = getattr(target, "load", None)
    if load is None:
        return False
    unknown = [one for one in _required(load) if one != "device"]
    if unknown:
        raise annotations.refuse(
            f"load, parameter {unknown[0]!r}", "is not known: load takes `device`, or nothing"
        )
    return "device" in inspect.signature(load).parameters


def _required(method: Any) -> list[str]:
    if method is None:
        return []
    parameters = list(inspect.signature(method).parameters.values())[1:]
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in fixed]
