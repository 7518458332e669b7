"""Comments in the protobuf files of a signature: what descriptors do not say."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from shared.signature import Field, ListType, MapType, MediaType, TensorType


def explain(one: Field) -> str:
    """What the descriptor of a field does not say."""
    type_, many = one.type, ""
    while isinstance(type_, ListType | MapType):
        many += "List of: " if isinstance(type_, ListType) else "By name: "
        type_ = type_.item if isinstance(type_, ListType) else type_.value
    said = ""
    if isinstance(type_, TensorType):
        shape = "" if type_.shape is None else f" of shape [{', '.join(map(str, type_.shape))}]"
        said = f"{many}{type_.dtype or 'Numbers'}{shape}."
    elif isinstance(type_, MediaType):
        said = f"{many}{type_.kind}."
    if one.required:
        return said
    if one.default is None:
        return f"{said} May be left out.".lstrip()
    default = json.dumps(one.default)
    return f"{said} Default: {default if len(default) <= 200 else 'set by the function'}.".lstrip()


def comment(described: FileDescriptorProto, path: Sequence[int], text: str) -> None:
    """Add a comment to what is at a path, as descriptor.proto's SourceCodeInfo counts paths."""
    if text:
        lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
        comments = "\n".join(f" {line.strip()}" for line in lines) + "\n"
        # Go's protobuf refuses a file where a location has no span.
        location = described.source_code_info.location
        location.add(path=path, span=(0, 0, 0), leading_comments=comments)
