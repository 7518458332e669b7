"""grpc.reflection v1 and v1alpha over files and services that may be added at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Stream

from shared.descriptors import classes, field, file, message, method, service

VERSIONS = ("v1", "v1alpha")


def _describe(version: str) -> FileDescriptorProto:
    package = f"grpc.reflection.{version}"
    p = f".{package}."
    request = message(
        "ServerReflectionRequest",
        field("host", 1, "string"),
        field("file_by_filename", 3, "string", oneof=True),
        field("file_containing_symbol", 4, "string", oneof=True),
        field("file_containing_extension", 5, p + "ExtensionRequest", oneof=True),
        field("all_extension_numbers_of_type", 6, "string", oneof=True),
        field("list_services", 7, "string", oneof=True),
        oneof="message_request",
    )
    response = message(
        "ServerReflectionResponse",
        field("valid_host", 1, "string"),
        field("original_request", 2, p + "ServerReflectionRequest"),
        field("file_descriptor_response", 4, p + "FileDescriptorResponse", oneof=True),
        field("all_extension_numbers_response", 5, p + "ExtensionNumberResponse", oneof=True),
        field("list_services_response", 6, p + "ListServiceResponse", oneof=True),
        field("error_response", 7, p + "ErrorResponse", oneof=True),
        oneof="message_response",
    )
    info = method(
        "ServerReflectionInfo", p + request.name, p + response.name, client=True, server=True
    )
    return file(
        f"grpc/reflection/{version}/reflection.proto",
        package,
        [
            request,
            message(
                "ExtensionRequest",
                field("containing_type", 1, "string"),
                field("extension_number", 2, "int32"),
            ),
            response,
            message(
                "FileDescriptorResponse", field("file_descriptor_proto", 1, "bytes", repeated=True)
            ),
            message(
                "ExtensionNumberResponse",
                field("base_type_name", 1, "string"),
                field("extension_number", 2, "int32", repeated=True),
            ),
            message(
                "ListServiceResponse", field("service", 1, p + "ServiceResponse", repeated=True)
            ),
            message("ServiceResponse", field("name", 1, "string")),
            message(
                "ErrorResponse",
                field("error_code", 1, "int32"),
                field("error_message", 2, "string"),
            ),
        ],
        [service("ServerReflection", info)],
    )


FILES = {version: _describe(version) for version in VERSIONS}
_TYPES = {version: classes(described) for version, described in FILES.items()}


class _NotKnown(Exception):
    """The registry has no such thing; the text says what."""


class ReflectionService:
    """Answers what the server serves; knows itself from the start."""

    background: ClassVar[bool] = True

    def __init__(self) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._file_of: dict[str, str] = {}
        self._extensions: dict[str, dict[int, str]] = {}
        self._services: set[str] = set()
        for version, described in FILES.items():
            self.add([described], [f"grpc.reflection.{version}.ServerReflection"])

    def add(self, files: Iterable[FileDescriptorProto], services: Iterable[str] = ()) -> None:
        """Add files, and list services.

        A file of a known name replaces it. Imports that are not known are taken from the
        process's own descriptor pool.

        Args:
            files: Descriptors, in any order.
            services: Full names of the services to list.

        Raises:
            ValueError: An import is not to be found.
        """
        added = {described.name: described for described in files}
        for described in list(added.values()):
            for name in described.dependency:
                self._import(name, described.name, added)
        for described in added.values():
            self._forget(described.name)
            self._files[described.name] = described
            for symbol in _symbols(described):
                self._file_of[symbol] = described.name
            for extended, number in _extensions(described):
                self._extensions.setdefault(extended, {})[number] = described.name
        self._services.update(services)

    def add_module(self, descriptor: FileDescriptor) -> None:
        """Add a generated module's `DESCRIPTOR`, what it imports, and list its services."""
        described = FileDescriptorProto()
        descriptor.CopyToProto(described)
        self.add([described], [s.full_name for s in descriptor.services_by_name.values()])

    def remove(self, services: Iterable[str], files: Iterable[str] = ()) -> None:
        """List services no longer, and forget files by name; other files stay known."""
        self._services.difference_update(services)
        for name in files:
            self._forget(name)

    def __mapping__(self) -> dict[str, Handler]:
        """The method in both versions, for the server."""
        return {
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": Handler(
                partial(self._serve, _TYPES[version]),
                Cardinality.STREAM_STREAM,
                _TYPES[version]["ServerReflectionRequest"],
                _TYPES[version]["ServerReflectionResponse"],
            )
            for version in VERSIONS
        }

    def _import(self, name: str, importer: str, added: dict[str, FileDescriptorProto]) -> None:
        if name in added or name in self._files:
            return
        try:
            descriptor = Default().FindFileByName(name)
        except KeyError:
            raise ValueError(f"{importer} imports {name}, which is not known") from None
        described = FileDescriptorProto()
        descriptor.CopyToProto(described)
        added[name] = described
        for imported in described.dependency:
            self._import(imported, name, added)

    def _forget(self, name: str) -> None:
        if self._files.pop(name, None) is None:
            return
        self._file_of = {symbol: f for symbol, f in self._file_of.items() if f != name}
        for numbers in self._extensions.values():
            for number in [n for n, f in numbers.items() if f == name]:
                del numbers[number]

    async def _serve(self, types: dict[str, Any], stream: Stream[Any, Any]) -> None:
        async for request in stream:
            response = types["ServerReflectionResponse"](
                valid_host=request.host, original_request=request
            )
            answers: dict[str | None, Callable[[Any, Any], None]] = {
                "file_by_filename": self._by_filename,
                "file_containing_symbol": self._by_symbol,
                "file_containing_extension": self._by_extension,
                "all_extension_numbers_of_type": self._extension_numbers,
                "list_services": self._list,
            }
            answer = answers.get(request.WhichOneof("message_request"))
            try:
                if answer is None:
                    raise _NotKnown("the request asks for nothing known here")
                answer(request, response)
            except _NotKnown as error:
                code = Status.INVALID_ARGUMENT if answer is None else Status.NOT_FOUND
                response.error_response.error_code = code.value
                response.error_response.error_message = str(error)
            await stream.send_message(response)

    def _by_filename(self, request: Any, response: Any) -> None:
        self._fill(request.file_by_filename, response)

    def _by_symbol(self, request: Any, response: Any) -> None:
        name = self._file_of.get(request.file_containing_symbol)
        if name is None:
            raise _NotKnown(f"no symbol {request.file_containing_symbol!r}")
        self._fill(name, response)

    def _by_extension(self, request: Any, response: Any) -> None:
        asked = request.file_containing_extension
        name = self._extensions.get(asked.containing_type, {}).get(asked.extension_number)
        if name is None:
            raise _NotKnown(f"no extension {asked.extension_number} of {asked.containing_type!r}")
        self._fill(name, response)

    def _extension_numbers(self, request: Any, response: Any) -> None:
        extended = request.all_extension_numbers_of_type
        if extended not in self._file_of:
            raise _NotKnown(f"no type {extended!r}")
        answer = response.all_extension_numbers_response
        answer.base_type_name = extended
        answer.extension_number.extend(sorted(self._extensions.get(extended, {})))

    def _list(self, request: Any, response: Any) -> None:
        del request
        response.list_services_response.SetInParent()
        for name in sorted(self._services):
            response.list_services_response.service.add(name=name)

    def _fill(self, name: str, response: Any) -> None:
        """Answer with the file and all that it imports, itself first."""
        if name not in self._files:
            raise _NotKnown(f"no file {name!r}")
        needed = {name: None}
        queue = [name]
        while queue:
            for imported in self._files[queue.pop()].dependency:
                if imported not in needed:
                    needed[imported] = None
                    queue.append(imported)
        response.file_descriptor_response.file_descriptor_proto.extend(
            self._files[n].SerializeToString() for n in needed
        )


def _symbols(described: FileDescriptorProto) -> Iterator[str]:
    """Full names of all that a file defines."""
    prefix = f"{described.package}." if described.package else ""
    for m in described.message_type:
        yield from _symbols_of(m, prefix)
    for enum in described.enum_type:
        yield prefix + enum.name
        yield from (prefix + value.name for value in enum.value)
    yield from (prefix + extension.name for extension in described.extension)
    for s in described.service:
        yield prefix + s.name
        yield from (f"{prefix}{s.name}.{m.name}" for m in s.method)


def _symbols_of(described: DescriptorProto, prefix: str) -> Iterator[str]:
    name = prefix + described.name
    yield name
    members = (described.field, described.oneof_decl, described.extension)
    yield from (f"{name}.{member.name}" for group in members for member in group)
    for enum in described.enum_type:
        yield f"{name}.{enum.name}"
        yield from (f"{name}.{value.name}" for value in enum.value)
    for nested in described.nested_type:
        yield from _symbols_of(nested, f"{name}.")


def _extensions(described: FileDescriptorProto) -> Iterator[tuple[str, int]]:
    """Type extended and field number of each extension that a file defines."""
    found = list(described.extension)
    queue = list(described.message_type)
    while queue:
        nested = queue.pop()
        found.extend(nested.extension)
        queue.extend(nested.nested_type)
    return ((extension.extendee.lstrip("."), extension.number) for extension in found)
