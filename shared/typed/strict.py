"""Parses messages strictly: what is malformed is refused, and the field at fault is named.

The parser in C does the work. It tells no field, and keeps a known field that came with a wrong
wire type as an unknown one; only where it fails or leaves unknown fields is the wire walked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from shared.descriptors import is_wrapper
from shared.errors import InvalidRequest
from shared.typed.unknown import finder

MOST_FIELDS = 20_000
"""Walked in search of the one at fault: some tens of milliseconds."""
_DEEPEST = 100
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)

_WIRE_TYPES = (
    dict.fromkeys(
        (
            FieldDescriptor.TYPE_STRING,
            FieldDescriptor.TYPE_BYTES,
            FieldDescriptor.TYPE_MESSAGE,
        ),
        _LENGTH,
    )
    | dict.fromkeys(
        (
            FieldDescriptor.TYPE_DOUBLE,
            FieldDescriptor.TYPE_FIXED64,
            FieldDescriptor.TYPE_SFIXED64,
        ),
        _FIXED64,
    )
    | dict.fromkeys(
        (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32),
        _FIXED32,
    )
)
"""Of a field's type; of all others it is a varint."""


class Strict:
    """A strict parser of one message class; build it once.

    Args:
        cls: The message class.
    """

    def __init__(self, cls: Any) -> None:
        self._parse = cls.FromString
        self._descriptor: Descriptor = cls.DESCRIPTOR
        self._has_unknown = finder(self._descriptor)

    def __call__(self, data: bytes) -> Any:
        """Parse.

        Fields of unknown numbers are dropped.

        Raises:
            InvalidRequest: It is truncated, has text that is not UTF-8, a known field of a wrong
                wire type, or is nested too deeply; `field` is the path.
        """
        try:
            message = self._parse(data)
        except DecodeError:
            raise self._fault(data, "the message is malformed") from None
        if not self._has_unknown(message, len(data)):
            return message
        fault = self._fault(data, "")
        if fault.message:
            raise fault
        message.DiscardUnknownFields()
        return message

    def _fault(self, data: bytes, otherwise: str) -> InvalidRequest:
        """What is wrong with the wire, or `otherwise` where the walk finds nothing."""
        walk = _Walk()
        try:
            walk.message(data, 0, len(data), self._descriptor, "", 0)
        except _Wrong as wrong:
            path, why = wrong.args
            return InvalidRequest(f"{path or 'the message'} {why}", field=path)
        return InvalidRequest(otherwise)


class _Wrong(Exception):
    """The path of the field at fault, and why."""


class _Walk:
    """One pass over a message's wire, which stops at the first fault."""

    def __init__(self) -> None:
        self.room = MOST_FIELDS

    def message(
        self, data: bytes, start: int, end: int, of: Descriptor, path: str, depth: int
    ) -> None:
        """Walk a message between two offsets."""
        if depth > _DEEPEST:
            raise _Wrong(path, "is nested too deeply")
        is_entry = of.GetOptions().map_entry
        seen: dict[int, int] = {}
        for number, wire, begin, stop in self.fields(data, start, end, path):
            field = of.fields_by_number.get(number)
            if field is None:
                if is_entry:
                    raise _Wrong(path, f"has an entry with a field of the unknown number {number}")
                continue
            index = seen[number] = seen.get(number, -1) + 1
            here = path if is_entry else _path(path, field, index, data, begin, stop)
            self.field(data, wire, begin, stop, field, here, depth)

    def field(
        self,
        data: bytes,
        wire: int,
        begin: int,
        stop: int,
        field: FieldDescriptor,
        path: str,
        depth: int,
    ) -> None:
        """Check the value of a known field, which lies between two offsets."""
        expected = _WIRE_TYPES.get(field.type, _VARINT)
        if stop > len(data):
            raise _Wrong(path, "is truncated")
        if wire == _LENGTH and expected != _LENGTH and field.is_repeated:
            self.packed(data, begin, stop, expected, path)
        elif wire != expected:
            raise _Wrong(path, f"has wire type {wire}: want {expected}")
        elif field.type == field.TYPE_STRING:
            try:
                data[begin:stop].decode()
            except UnicodeDecodeError:
                raise _Wrong(path, "is not UTF-8") from None
        elif field.type == field.TYPE_MESSAGE:
            assert field.message_type is not None
            self.message(data, begin, stop, field.message_type, path, depth + 1)

    def packed(self, data: bytes, begin: int, stop: int, wire: int, path: str) -> None:
        """Check a packed field."""
        if wire == _VARINT:
            if stop > begin and data[stop - 1] & 0x80:
                raise _Wrong(path, "is truncated")
        elif (stop - begin) % (8 if wire == _FIXED64 else 4):
            raise _Wrong(path, "is truncated")

    def fields(
        self, data: bytes, start: int, end: int, path: str
    ) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type and the value's two offsets, of each field.

        A value that ends beyond the message has an offset beyond the data.
        """
        position = start
        while position < end:
            self.room -= 1
            if self.room < 0:
                raise _Wrong("", "has malformed or unknown fields, too many to say which")
            tag, position = _varint(data, position, end, path)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >= 1 << 32:
                raise _Wrong(path, "is malformed: a field has no lawful number")
            begin, stop = position, position
            if wire == _VARINT:
                while stop < end and data[stop] & 0x80:
                    stop += 1
                stop += 1
            elif wire == _LENGTH:
                try:
                    length, begin = _varint(data, position, end, path)
                except _Wrong:  # Its length is cut off: the field is known all the same.
                    length = end
                stop = begin + length
            elif wire == _FIXED64:
                stop += 8
            elif wire == _FIXED32:
                stop += 4
            elif wire == _GROUP:
                stop = self.group(data, position, end, path, number)
            else:
                raise _Wrong(path, f"is malformed: a field has wire type {wire}")
            if stop > end or (wire == _VARINT and stop - begin > 10):
                yield number, wire, begin, len(data) + 1
                raise _Wrong(path, "is truncated")
            yield number, wire, begin, stop
            position = stop

    def group(self, data: bytes, position: int, end: int, path: str, number: int) -> int:
        """Where a group, which proto3 has not, ends; beyond its end tag."""
        open_groups = [number]
        while open_groups:
            self.room -= 1
            if len(open_groups) > _DEEPEST or self.room < 0:
                raise _Wrong(path, "is nested too deeply")
            tag, position = _varint(data, position, end, path)
            wire = tag & 7
            if wire == _GROUP:
                open_groups.append(tag >> 3)
            elif wire == _GROUP_END:
                if open_groups.pop() != tag >> 3:
                    raise _Wrong(path, "is malformed: a group ends that did not begin")
            elif wire == _LENGTH:
                length, position = _varint(data, position, end, path)
                position += length
            elif wire == _VARINT:
                _, position = _varint(data, position, end, path)
            else:
                position += 8 if wire == _FIXED64 else 4
        return position


def _varint(data: bytes, position: int, end: int, path: str) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _Wrong(path, "is truncated")


def _path(path: str, field: FieldDescriptor, index: int, data: bytes, begin: int, stop: int) -> str:
    """Where a field's value is; a wrapper's only field is where the wrapper is."""
    containing = field.containing_type
    if containing is not None and is_wrapper(containing):
        here = path
    else:
        here = f"{path}.{field.name}" if path else field.name
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return here + _key(data[begin:stop])
    many = field.is_repeated and (
        entry is not None or field.type in (field.TYPE_STRING, field.TYPE_BYTES)
    )
    return f"{here}[{index}]" if many else here


def _key(entry: bytes) -> str:
    """A map entry's key in brackets, for a path; nothing where it cannot be told."""
    if entry[:1] != b"\x0a" or len(entry) < 2 or entry[1] > min(64, len(entry) - 2):
        return ""
    return f'["{entry[2 : 2 + entry[1]].decode(errors="replace")}"]'
