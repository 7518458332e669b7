"""Prints a proto3 file's descriptor as the .proto text that it came from, or could have.

For `millstream proto`: what reflection tells becomes a file that protoc takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

_SCALARS = {
    FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}"): name
    for name in (
        "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string",
        "bytes", "uint32", "sfixed32", "sfixed64", "sint32", "sint64",
    )
}  # fmt: skip
_FIELDS, _NESTED, _ENUMS, _ONEOFS = 2, 3, 4, 8
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
"""Field numbers in descriptor.proto, of which SourceCodeInfo's paths consist."""


def source(described: FileDescriptorProto) -> str:
    """One file as .proto text, with the comments that its source_code_info has.

    Raises:
        ValueError: It is not proto3, or has extensions.
    """
    if described.syntax != "proto3" or described.extension:
        raise ValueError(f"{described.name} is not proto3, or has extensions")
    return "\n".join(_Print(described).file()) + "\n"


class _Print:
    """One file's printing: its package and its comments."""

    def __init__(self, described: FileDescriptorProto) -> None:
        self._file = described
        self._inner = set(_inner_names(described.message_type))
        self._comments = {
            tuple(location.path): location.leading_comments
            for location in described.source_code_info.location
            if location.leading_comments
        }

    def file(self) -> Iterator[str]:
        """All its lines."""
        described = self._file
        scope = f".{described.package}" if described.package else ""
        yield from self._comment((12,), "")
        yield 'syntax = "proto3";'
        if described.package:
            yield from ("", f"package {described.package};")
        if described.dependency:
            yield ""
            yield from (f'import "{name}";' for name in described.dependency)
        for index, service in enumerate(described.service):
            yield ""
            yield from self._service(service, (_SERVICE, index))
        for index, message in enumerate(described.message_type):
            yield ""
            yield from self._message(message, (_MESSAGE, index), scope, "")
        for index, enum in enumerate(described.enum_type):
            yield ""
            yield from self._enum(enum, (_ENUM, index), "")

    def _service(self, service: ServiceDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield from self._comment(path, "")
        yield f"service {service.name} {{"
        for index, method in enumerate(service.method):
            yield from self._comment((*path, 2, index), "  ")
            request = f"{'stream ' * method.client_streaming}{self._name(method.input_type)}"
            reply = f"{'stream ' * method.server_streaming}{self._name(method.output_type)}"
            yield f"  rpc {method.name}({request}) returns ({reply});"
        yield "}"

    def _message(
        self, message: DescriptorProto, path: Sequence[int], scope: str, indent: str
    ) -> Iterator[str]:
        full = f"{scope}.{message.name}"
        yield from self._comment(path, indent)
        yield f"{indent}message {message.name} {{"
        inner = f"{indent}  "
        entries = {
            f"{full}.{nested.name}": nested
            for nested in message.nested_type
            if nested.options.map_entry
        }
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from self._message(nested, (*path, _NESTED, index), full, inner)
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, _ENUMS, index), inner)
        done: set[int] = set()
        for index, field in enumerate(message.field):
            group = field.oneof_index
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield from self._comment((*path, _FIELDS, index), inner)
                yield f"{inner}{self._field(field, entries)}"
            elif group not in done:
                done.add(group)
                yield from self._oneof(message, group, path, inner)
        yield f"{indent}}}"

    def _oneof(
        self, message: DescriptorProto, group: int, path: Sequence[int], indent: str
    ) -> Iterator[str]:
        yield from self._comment((*path, _ONEOFS, group), indent)
        yield f"{indent}oneof {message.oneof_decl[group].name} {{"
        for index, field in enumerate(message.field):
            if field.HasField("oneof_index") and field.oneof_index == group:
                yield from self._comment((*path, _FIELDS, index), f"{indent}  ")
                yield f"{indent}  {self._field(field, {})}"
        yield f"{indent}}}"

    def _enum(self, enum: EnumDescriptorProto, path: Sequence[int], indent: str) -> Iterator[str]:
        yield from self._comment(path, indent)
        yield f"{indent}enum {enum.name} {{"
        for index, value in enumerate(enum.value):
            yield from self._comment((*path, 2, index), f"{indent}  ")
            yield f"{indent}  {value.name} = {value.number};"
        yield f"{indent}}}"

    def _comment(self, path: Sequence[int], indent: str) -> Iterator[str]:
        for line in self._comments.get(tuple(path), "").splitlines():
            text = "".join(c if c.isprintable() else " " for c in line).rstrip()
            yield f"{indent}//{text}"

    def _field(self, field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
        entry = entries.get(field.type_name)
        if entry is not None:
            key, value = (self._type(one) for one in entry.field)
            return f"map<{key}, {value}> {field.name} = {field.number};"
        label = "repeated " if field.label == field.LABEL_REPEATED else ""
        if field.proto3_optional:
            label = "optional "
        return f"{label}{self._type(field)} {field.name} = {field.number};"

    def _type(self, field: FieldDescriptorProto) -> str:
        return self._name(field.type_name) if field.type_name else _SCALARS[field.type]

    def _name(self, full: str) -> str:
        """A type's name, as short as protoc still finds it from anywhere in the file."""
        package = self._file.package
        short = full.removeprefix(f".{package}.") if package else full
        if short == full:
            short = full.removeprefix(".")
            hidden = package.split(".")[1:]
        else:
            hidden = []
        first = short.partition(".")[0]
        return full if first in self._inner or first in hidden else short


def _inner_names(messages: Iterable[DescriptorProto]) -> Iterator[str]:
    for message in messages:
        yield from (nested.name for nested in message.nested_type)
        yield from (enum.name for enum in message.enum_type)
        yield from _inner_names(message.nested_type)
