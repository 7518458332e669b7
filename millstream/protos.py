"""Writes the .proto files of a served function, for clients in other languages."""

from __future__ import annotations

from importlib.resources import files as resources
from pathlib import Path, PurePosixPath
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from millstream.channel import told
from millstream.client import Client
from millstream.reflected import Method
from shared.errors import InternalError, InvalidRequest, UnknownModel
from shared.protofile import source

TYPES: Final = "millstream/v1/types.proto"
BUNDLED: Final = "google/protobuf/"
"""protoc brings these."""

LIMIT: Final = 10.0


async def protos(client: Client, name: str) -> dict[str, str]:
    """A function's files by name: with its alias where it is the default version.

    Raises:
        UnknownModel: Nobody serves it; the message lists the functions that are.
        InvalidRequest: It is a language model, or its service's name is another function's.
        Unavailable: No gateway answers.
    """
    try:
        method = await client.function(name, deadline=LIMIT).method()
    except UnknownModel as error:
        message = f"{name!r} is not served; {await _served(client)}"
        raise UnknownModel(message, field="model") from error
    if not method.service:
        message = f"{name!r} has no service of its own: another function has its name"
        raise InvalidRequest(message, field="model")
    described = [*method.files, *await _alias(client, method)]
    found = {one.name: _source(one) for one in described if not one.name.startswith(BUNDLED)}
    found[TYPES] = resources("millstream").joinpath("v1/types.proto").read_text()
    return found


def write(found: dict[str, str], out: Path) -> list[Path]:
    """Write files under a folder, which is made; returns their paths.

    Raises:
        ValueError: A file cannot be written.
    """
    written = []
    for name, text in found.items():
        path = out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise ValueError(f"cannot write {path}: {error.strerror}") from error
        written.append(path)
    return written


def _source(described: FileDescriptorProto) -> str:
    """The text of a file, whose name came over the network."""
    path = PurePosixPath(described.name)
    if path.parts[:1] != ("millstream",) or ".." in path.parts or path.suffix != ".proto":
        raise InternalError(f"the gateway describes a file of the name {described.name!r}")
    return source(described)


async def _alias(client: Client, method: Method) -> list[FileDescriptorProto]:
    """The file of the name without a version, where it stands for this one."""
    package, _, service = method.service.rpartition(".")
    async with told(client.target):
        try:
            (alias, *_) = await client.methods.files(f"{package.rpartition('.')[0]}.{service}")
        except UnknownModel:
            return []  # No version is the default one.
    return [alias] if method.files[0].name in alias.dependency else []


async def _served(client: Client) -> str:
    names = [one.name for one in await client.models(deadline=LIMIT) if "predict" in one.features]
    return f"served are {', '.join(names)}" if names else "no functions are served"
