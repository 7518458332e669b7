"""A signature as bytes, for a worker's announcement, and back. What comes back is distrusted."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any, TypeAlias

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
from shared.typed.rules import DEEPEST, MEDIA, MOST_BYTES, SCALARS, validate

_Json: TypeAlias = dict[str, Any]


def dump(signature: Signature) -> bytes:
    """Canonical JSON of a signature.

    Raises:
        ValueError: It cannot be served: a name that protobuf does not allow, or too much of it.
    """
    validate(signature)
    written = {
        "name": signature.name,
        "version": signature.version,
        "inputs": _write(signature.inputs),
        "output": None if signature.output is None else _write(signature.output),
        "streaming": signature.streaming,
        "default": signature.default,
        "summary": signature.summary,
    }
    try:
        data = json.dumps(written, sort_keys=True, separators=(",", ":")).encode()
    except TypeError as error:
        raise ValueError(f"a default is no JSON: {error}") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"it takes {len(data)} bytes as JSON: want at most {MOST_BYTES}")
    return data


def load(data: bytes) -> Signature:
    """The signature that `dump` wrote; members it does not know are ignored.

    Raises:
        ValueError: The bytes are nothing that `dump` writes.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes: want at most {MOST_BYTES}")
    try:
        read = json.loads(data)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(read, dict):
        raise ValueError("it is no JSON object")
    output = read.get("output")
    signature = Signature(
        name=_take(read, "name", str),
        version=_take(read, "version", str),
        inputs=_record(_take(read, "inputs", dict), 0),
        output=None if output is None else _read(output, 0),
        streaming=_take(read, "streaming", bool),
        default=_take(read, "default", bool),
        summary=_take(read, "summary", str),
    )
    validate(signature)
    return signature


def fingerprint(signature: Signature) -> str:
    """A name for all that callers and workers must agree on: not the summary, nor `default`."""
    agreed = dump(replace(signature, summary="", default=False))
    return f"{signature.served_name}-{hashlib.sha256(agreed).hexdigest()[:16]}"


def natural(version: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A key that sorts versions as people do: 2 before 10, 1.2 before 1.10, beta before 1."""
    parts = re.findall(r"[0-9]+|[^0-9]+", version)
    key = tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
    return key, version


def _write(type_: Type) -> _Json:
    match type_:
        case Scalar() | MediaType():
            return {"kind": type_.kind}
        case EnumType():
            return {"kind": "enum", "name": type_.name, "members": list(type_.members)}
        case TensorType():
            shape = None if type_.shape is None else list(type_.shape)
            return {"kind": "tensor", "dtype": type_.dtype, "shape": shape}
        case ListType():
            return {"kind": "list", "item": _write(type_.item)}
        case MapType():
            return {"kind": "map", "value": _write(type_.value)}
        case Record():
            fields = [
                {
                    "name": field.name,
                    "number": field.number,
                    "type": _write(field.type),
                    "required": field.required,
                    "default": field.default,
                }
                for field in type_.fields
            ]
            return {"kind": "record", "name": type_.name, "fields": fields}


def _read(read: Any, depth: int) -> Type:
    if not isinstance(read, dict):
        raise ValueError(f"want a type, got {type(read).__name__}")
    if depth > DEEPEST:
        raise ValueError(f"its types are nested more than {DEEPEST} deep")
    kind: Any = _take(read, "kind", str)
    if kind in SCALARS:
        return Scalar(kind)
    if kind in MEDIA:
        return MediaType(kind)
    match kind:
        case "enum":
            members = [_is(member, str) for member in _take(read, "members", list)]
            return EnumType(_take(read, "name", str), tuple(members))
        case "tensor":
            shape = read.get("shape")
            if shape is not None:
                shape = tuple(
                    one if isinstance(one, str) else _is(one, int) for one in _is(shape, list)
                )
            return TensorType(_take(read, "dtype", str), shape)
        case "list":
            return ListType(_read(read.get("item"), depth + 1))
        case "map":
            return MapType(_read(read.get("value"), depth + 1))
        case "record":
            return _record(read, depth)
    raise ValueError(f"no kind of type is called {kind[:32]!r}")


def _record(read: _Json, depth: int) -> Record:
    fields = [_field(_is(field, dict), depth + 1) for field in _take(read, "fields", list)]
    return Record(_take(read, "name", str), tuple(fields))


def _field(read: _Json, depth: int) -> Field:
    return Field(
        name=_take(read, "name", str),
        number=_take(read, "number", int),
        type=_read(read.get("type"), depth),
        required=_take(read, "required", bool),
        default=read.get("default"),
    )


def _take(read: _Json, name: str, kind: type) -> Any:
    """A member of a JSON object, which must be there and of this type exactly."""
    if name not in read:
        raise ValueError(f"{name!r} is missing")
    return _is(read[name], kind)


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"want {kind.__name__}, got {type(value).__name__}")
    return value
