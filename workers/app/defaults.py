"""Whether a parameter's default is what its annotation says."""

from __future__ import annotations

import inspect
import reprlib
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
    if node.type != Scalar("json"):
        field_encoder(node, field)(default, {})
        return
    inner, _, _ = bare(annotation)  # In Python, Any is more than JSON: such as a mark of one's own.
    plain = get_origin(inner) or inner
    if plain in (list, dict) and not isinstance(default, plain):
        raise want(plain.__name__, default)
