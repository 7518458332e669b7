"""Whether a parameter's default is what its annotation says."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, get_origin

from shared.signature import Scalar, Signature
from shared.typed import Typed
from workers.app.annotations import Annotations
from workers.app.encoding import field_encoder
from workers.app.nodes import Node, bare
from workers.app.scalars import Wrong, want
from workers.app.signatures import Reading

_EMPTY = inspect.Parameter.empty


def check_defaults(
    target: Any, reading: Reading, described: Signature, annotations: Annotations
) -> None:
    """Refuse a default that the annotation does not allow; None is always one.

    Args:
        target: The function, or the class whose instances are called.
        reading: What it says.
        described: What is announced of it.
        annotations: Reads its annotations.

    Raises:
        TypeError: Names the parameter, its default and its annotation.
    """
    call = target.__call__ if inspect.isclass(target) else target
    parameters = inspect.signature(call).parameters
    given = [
        slot
        for slot in reading.slots
        if (default := parameters[slot.key].default) is not None and default is not _EMPTY
    ]
    if not given:
        return
    fields = Typed(described).request.DESCRIPTOR.fields_by_name
    hints = annotations.hints(call, "its annotations")
    for slot in given:
        parameter = parameters[slot.key]
        try:
            _check(parameter.default, hints[slot.key], slot.node, fields[slot.field.name])
        except Wrong as wrong:
            said = parameter.annotation
            said = said if isinstance(said, str) else inspect.formatannotation(said)
            part = "".join(reversed(wrong.path))
            raise annotations.refuse(
                f"parameter {slot.key!r}",
                f"its default {reprlib.repr(parameter.default)} does not fit {said}: "
                + (f"{part}: {wrong}" if part else str(wrong)),
            ) from None


def _check(default: Any, annotation: Any, node: Node, field: Any) -> None:
    """Hold a default to its type, but not to what only what travels must be."""
    if type(default) is object:
        return  # A mark of one's own: nothing was given.
    inner, _, _ = bare(annotation)
    plain = get_origin(inner) or inner
    if node.slots and inspect.isclass(node.python):
        if not isinstance(default, node.python):  # What it holds is its class's affair.
            raise want(node.python.__name__, default)
    elif node.type == Scalar("json"):
        if plain is dict and not isinstance(default, Mapping):
            raise want("dict", default)
        if plain is list and not _is_row(default):
            raise want("list", default)
    elif node.item is not None and _is_row(default) and not isinstance(default, list | tuple):
        return  # A range, a deque, a frozenset.
    else:
        field_encoder(node, field)(default, {})


def _is_row(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
