"""Builds protobuf messages at run time, in a pool of their own.

Health and reflection come from here and not from generated modules: those register their types in
the process-wide pool, where a second copy (grpclib's, grpcio's) fails to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
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
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


def message(name: str, *fields: FieldDescriptorProto, oneof: str = "") -> DescriptorProto:
    """Describe a message; `oneof` names the group that fields made with `oneof=True` belong to."""
    described = DescriptorProto(name=name, field=fields)
    if oneof:
        described.oneof_decl.add(name=oneof)
    return described


def field(
    name: str, number: int, type_name: str, *, repeated: bool = False, oneof: bool = False
) -> FieldDescriptorProto:
    """Describe a field; `type_name` is a scalar's name or a message's with a leading dot."""
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
    if oneof:
        described.oneof_index = 0
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
) -> FileDescriptorProto:
    """Describe a proto3 file."""
    return FileDescriptorProto(
        name=name,
        package=package,
        syntax="proto3",
        message_type=messages,
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
