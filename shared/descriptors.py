"""Builds protobuf messages at run time, in a pool of their own.

Health, reflection and the typed services of functions come from here and not from generated
modules: those register their types in the process-wide pool, where a second copy (grpclib's,
grpcio's) fails to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "sint64": FieldDescriptorProto.TYPE_SINT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
WRAPPERS = ("List", "Map")
_KINDS = {"message": FieldDescriptorProto.TYPE_MESSAGE, "enum": FieldDescriptorProto.TYPE_ENUM}


def message(
    name: str,
    *fields: FieldDescriptorProto,
    oneof: str = "",
    nested: Iterable[DescriptorProto] = (),
) -> DescriptorProto:
    """Describe a message.

    Args:
        name: Its name.
        *fields: Its fields.
        oneof: Names the group that fields made with `oneof=True` belong to.
        nested: Messages inside it: the entries of its maps.
    """
    described = DescriptorProto(name=name, field=fields, nested_type=nested)
    if oneof:
        described.oneof_decl.add(name=oneof)
    taken = {f.name for f in fields} | {oneof}
    for f in described.field:
        if f.proto3_optional:
            group = f.name if f.name.startswith("_") else f"_{f.name}"
            while group in taken:  # As protoc names them.
                group = f"X{group}"
            taken.add(group)
            f.oneof_index = len(described.oneof_decl)
            described.oneof_decl.add(name=group)
    return described


def field(
    name: str,
    number: int,
    type_name: str,
    *,
    repeated: bool = False,
    oneof: bool = False,
    optional: bool = False,
    kind: Literal["", "message", "enum"] = "",
) -> FieldDescriptorProto:
    """Describe a field.

    Args:
        name: Its name.
        number: Its number.
        type_name: A scalar's name, or a message's or enum's with a leading dot.
        repeated: Whether it is repeated.
        oneof: Whether it belongs to the message's group.
        optional: Whether a scalar or enum tells unset from zero.
        kind: What the type that is no scalar is; "" lets the pool find out.
    """
    described = FieldDescriptorProto(
        name=name,
        number=number,
        label=FieldDescriptorProto.LABEL_REPEATED
        if repeated
        else FieldDescriptorProto.LABEL_OPTIONAL,
    )
    if type_name in _SCALARS:
        described.type = _SCALARS[type_name]
    else:
        described.type_name = type_name
    if kind:
        described.type = _KINDS[kind]
    if oneof:
        described.oneof_index = 0
    if optional:
        described.proto3_optional = True
    return described


def map_field(
    name: str, number: int, value: FieldDescriptorProto, container: str
) -> tuple[FieldDescriptorProto, DescriptorProto]:
    """Describe a map from strings.

    Args:
        name: Its name.
        number: Its number.
        value: A field described with `value` for name and 2 for number.
        container: Full name of the message it is in, with a leading dot.

    Returns:
        The field, and the message of its entries, to be nested in the container.
    """
    entry = message(entry_name(name), field("key", 1, "string"), value)
    entry.options.map_entry = True
    type_name = f"{container}.{entry.name}"
    return field(name, number, type_name, repeated=True, kind="message"), entry


def entry_name(name: str) -> str:
    """The name that a map field's entries have, as protoc makes it."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry"


def enum(name: str, *values: str) -> EnumDescriptorProto:
    """Describe an enum, its values numbered from 0."""
    described = EnumDescriptorProto(name=name)
    for number, value in enumerate(values):
        described.value.add(name=value, number=number)
    return described


def method(
    name: str, request: str, reply: str, *, client: bool = False, server: bool = False
) -> MethodDescriptorProto:
    """Describe a method; `client` and `server` say who streams."""
    return MethodDescriptorProto(
        name=name,
        input_type=request,
        output_type=reply,
        client_streaming=client,
        server_streaming=server,
    )


def service(name: str, *methods: MethodDescriptorProto) -> ServiceDescriptorProto:
    """Describe a service."""
    return ServiceDescriptorProto(name=name, method=methods)


def file(
    name: str,
    package: str,
    messages: Iterable[DescriptorProto],
    services: Iterable[ServiceDescriptorProto] = (),
    imports: Sequence[str] = (),
    enums: Iterable[EnumDescriptorProto] = (),
) -> FileDescriptorProto:
    """Describe a proto3 file."""
    return FileDescriptorProto(
        name=name,
        package=package,
        syntax="proto3",
        message_type=messages,
        enum_type=enums,
        service=services,
        dependency=imports,
    )


def classes(described: FileDescriptorProto, *imports: FileDescriptorProto) -> dict[str, Any]:
    """Message classes of a file by their simple names, from a pool that is theirs alone."""
    pool = DescriptorPool()
    for needed in (*imports, described):
        pool.AddSerializedFile(needed.SerializeToString())
    prefix = f"{described.package}." if described.package else ""
    return {
        m.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(prefix + m.name))
        for m in described.message_type
    }


def is_wrapper(described: Descriptor) -> bool:
    """Whether a message only stands for a list in a list or a map, which protobuf cannot nest.

    No record looks so: `shared.typed` names them otherwise.
    """
    fields = described.fields
    return (
        len(fields) == 1
        and fields[0].number == 1
        and fields[0].name == "values"
        and fields[0].is_repeated
        and described.name.endswith(WRAPPERS)
    )
