"""Finds unknown fields in a parsed message, at any depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet

SMALL = 1 << 16
"""Bytes up to which a message is written out to learn its size, in C, sooner than walked."""

_Find: TypeAlias = Callable[[Any], bool]


def finder(of: Descriptor) -> Callable[[Any, int], bool]:
    """What tells, of a message of this type and so many bytes, whether it has unknown fields.

    They may be gone afterwards.
    """
    walks: dict[str, _Find] = {}
    walk = _walk(of, walks)
    if not any(_has_many(one) for one in _reachable(of)):
        return lambda message, size: walk(message)

    def found(message: Any, size: int) -> bool:
        if size > SMALL:
            return walk(message)
        before = message.ByteSize()
        message.DiscardUnknownFields()
        return bool(before != message.ByteSize())

    return found


def _walk(of: Descriptor, walks: dict[str, _Find]) -> _Find:
    """A message's walk; as types may contain themselves, those made already are in `walks`."""
    if of.full_name in walks:
        return walks[of.full_name]
    fields = [(field, inner) for field in of.fields if (inner := _inner(field)) is not None]
    single: list[tuple[str, _Find]] = []
    several: list[tuple[str, _Find]] = []
    by_name: list[tuple[str, _Find]] = []
    walks[of.full_name] = _walker(single, several, by_name) if fields else _has_own
    for field, inner in fields:
        group = by_name if _is_map(field) else several if field.is_repeated else single
        group.append((field.name, _walk(inner, walks)))
    return walks[of.full_name]


def _walker(
    single: list[tuple[str, _Find]],
    several: list[tuple[str, _Find]],
    by_name: list[tuple[str, _Find]],
) -> _Find:
    """The walk of a message with these fields, which may be added later."""

    def walk(message: Any) -> bool:
        if len(UnknownFieldSet(message)):
            return True
        for name, find in single:
            if message.HasField(name) and find(getattr(message, name)):
                return True
        for name, find in several:
            for inner in getattr(message, name):
                if find(inner):
                    return True
        for name, find in by_name:
            values = getattr(message, name)
            for key in values:
                if find(values[key]):
                    return True
        return False

    return walk


def _has_own(message: Any) -> bool:
    return len(UnknownFieldSet(message)) > 0


def _reachable(of: Descriptor) -> list[Descriptor]:
    found = {of.full_name: of}
    queue = [of]
    while queue:
        for field in queue.pop().fields:
            inner = _inner(field)
            if inner is not None and inner.full_name not in found:
                found[inner.full_name] = inner
                queue.append(inner)
    return list(found.values())


def _has_many(of: Descriptor) -> bool:
    return any(field.is_repeated and _inner(field) is not None for field in of.fields)


def _inner(field: FieldDescriptor) -> Descriptor | None:
    """The message in a field, or in a map's values; a map's entries are none of Python's."""
    inner = field.message_type
    return inner.fields_by_name["value"].message_type if inner and _is_map(field) else inner


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
