"""From a signature to protobuf files: the one place where names and field numbers are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from millstream.v1 import types_pb2
from shared import descriptors
from shared.descriptors import WRAPPERS
from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
    Signature,
    TensorType,
    Type,
)
from shared.typed.comments import comment, explain
from shared.typed.names import (
    PACKAGE,
    alias_file_name,
    enum_values,
    file_name,
    method_name,
    package,
    service_name,
    simple_name,
)

RESULT = "result"
INDEX = "index"
"""Fields of a response: what was returned or yielded, and the item's position."""

_IMPORTED = {
    module.DESCRIPTOR.name: module.DESCRIPTOR for module in (types_pb2, timestamp_pb2, struct_pb2)
}
_FOREIGN = {
    "timestamp": (".google.protobuf.Timestamp", timestamp_pb2.DESCRIPTOR.name),
    "json": (".google.protobuf.Value", struct_pb2.DESCRIPTOR.name),
    "tensor": (".millstream.v1.Tensor", types_pb2.DESCRIPTOR.name),
    "media": (".millstream.v1.Media", types_pb2.DESCRIPTOR.name),
}


def files(signature: Signature) -> list[FileDescriptorProto]:
    """The files that define a lawful signature's service: imports first, its own the last."""
    own = _Layout(signature).file()
    return [*(_copy(_IMPORTED[name]) for name in own.dependency), own]


def alias_file(signature: Signature) -> FileDescriptorProto:
    """The file of the service without a version, which has the version's messages."""
    described = descriptors.file(
        alias_file_name(signature),
        PACKAGE,
        [],
        [_service(signature)],
        [file_name(signature)],
    )
    comment(described, (6, 0), f"{simple_name(signature)} is {signature.served_name}.")
    return described


@dataclass
class _Layout:
    """One file in the making: names given so far, and the messages in order."""

    signature: Signature
    messages: list[DescriptorProto] = field(default_factory=list)
    enums: list[EnumDescriptorProto] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)

    def file(self) -> FileDescriptorProto:
        """Describe the file."""
        signature, name = self.signature, simple_name(self.signature)
        self.taken |= {name, f"{name}Request", f"{name}Response"}
        self._message(f"{name}Request", signature.inputs.fields)
        result = [] if signature.output is None else [Field(RESULT, 1, signature.output)]
        position = len(self.messages)
        response = self._message(f"{name}Response", result)
        self.messages.insert(1, self.messages.pop(position))
        if signature.streaming:
            response.field.append(descriptors.field(INDEX, 2, "uint64"))
            self.comments[response.name].append("The item's position, from 0.")
        described = descriptors.file(
            file_name(signature),
            package(signature),
            self.messages,
            [_service(signature)],
            sorted(self.imports),
            self.enums,
        )
        self._comment(described)
        return described

    def _message(self, name: str, fields: Sequence[Field]) -> DescriptorProto:
        described = DescriptorProto()
        self.messages.append(described)
        self.comments[name] = [explain(one) for one in fields]
        nested: list[DescriptorProto] = []
        made = [self._field(one.name, one.number, one.type, name, nested) for one in fields]
        described.CopyFrom(descriptors.message(name, *made, nested=nested))
        return described

    def _field(
        self, name: str, number: int, type_: Type, inside: str, nested: list[DescriptorProto]
    ) -> FieldDescriptorProto:
        if isinstance(type_, ListType):
            return self._single(name, number, type_.item, repeated=True)
        if isinstance(type_, MapType):
            value = self._single("value", 2, type_.value)
            container = f".{package(self.signature)}.{inside}"
            made, entry = descriptors.map_field(name, number, value, container)
            nested.append(entry)
            return made
        return self._single(name, number, type_, repeated=False, optional=True)

    def _single(
        self, name: str, number: int, type_: Type, *, repeated: bool = False, optional: bool = False
    ) -> FieldDescriptorProto:
        """A field whose values are each one of a type that protobuf has or is given here."""
        match type_:
            case Scalar(kind="timestamp" | "json" as kind):
                type_name = self._foreign(kind)
            case Scalar():
                return descriptors.field(
                    name, number, type_.kind, repeated=repeated, optional=optional
                )
            case EnumType():
                type_name = self._enum(type_)
                return descriptors.field(
                    name, number, type_name, repeated=repeated, optional=optional, kind="enum"
                )
            case TensorType():
                type_name = self._foreign("tensor")
            case MediaType():
                type_name = self._foreign("media")
            case Record():
                type_name = self._record(type_)
            case ListType() | MapType():
                type_name = self._wrapper(type_)
        return descriptors.field(name, number, type_name, repeated=repeated, kind="message")

    def _foreign(self, kind: str) -> str:
        type_name, file_name = _FOREIGN[kind]
        self.imports.add(file_name)
        return type_name

    def _record(self, record: Record) -> str:
        def shaped_as_wrapper(name: str) -> bool:
            fields = record.fields
            return (
                name.endswith(WRAPPERS)
                and [f.name for f in fields] == ["values"]
                and isinstance(fields[0].type, ListType | MapType)
            )

        key = repr(record)
        if key not in self.names:
            stem = "Record" if shaped_as_wrapper(record.name) else ""
            name = self._name(key, record.name + stem)
            self._message(name, record.fields)
        return self._full(key)

    def _wrapper(self, type_: ListType | MapType) -> str:
        key = repr(type_)
        if key not in self.names:
            inner, suffix = (
                (type_.item, WRAPPERS[0])
                if isinstance(type_, ListType)
                else (type_.value, WRAPPERS[1])
            )
            name = self._name(key, self._stem(inner), suffix)
            self._message(name, [Field("values", 1, type_)])
        return self._full(key)

    def _enum(self, enum: EnumType) -> str:
        key = repr(enum)
        if key not in self.names:
            name = self._name(key, enum.name, members=enum.members)
            self.enums.append(descriptors.enum(name, *enum_values(name, enum.members)))
        return self._full(key)

    def _stem(self, type_: Type) -> str:
        """What a wrapper's name says that it wraps, without the service's name."""
        match type_:
            case Scalar() | MediaType():
                return type_.kind.capitalize()
            case TensorType():
                return "Tensor"
            case EnumType():
                full = self._enum(type_)
            case Record():
                full = self._record(type_)
            case ListType() | MapType():
                full = self._wrapper(type_)
        return full.rpartition(".")[2].removeprefix(simple_name(self.signature))

    def _name(self, key: str, stem: str, suffix: str = "", members: Sequence[str] = ()) -> str:
        """Give a name that nothing in the file has, nor an enum's values."""
        while True:
            count = self.counts[stem, suffix] = self.counts.get((stem, suffix), 0) + 1
            name = f"{simple_name(self.signature)}{stem}{count if count > 1 else ''}{suffix}"
            names = {name, *(enum_values(name, members) if members else ())}
            if not names & self.taken:
                break
        self.taken |= names
        self.names[key] = name
        return name

    def _full(self, key: str) -> str:
        return f".{package(self.signature)}.{self.names[key]}"

    def _comment(self, described: FileDescriptorProto) -> None:
        signature = self.signature
        comment(described, (6, 0), signature.summary or f"{signature.served_name}.")
        for at, made in enumerate(described.message_type):
            for index, text in enumerate(self.comments.get(made.name, ())):
                comment(described, (4, at, 2, index), text)


def _service(signature: Signature) -> ServiceDescriptorProto:
    base = f".{service_name(signature)}"
    method = descriptors.method(
        method_name(signature), f"{base}Request", f"{base}Response", server=signature.streaming
    )
    return descriptors.service(simple_name(signature), method)


def _copy(descriptor: FileDescriptor) -> FileDescriptorProto:
    described = FileDescriptorProto()
    descriptor.CopyToProto(described)
    return described
