"""`key=value` on a command line as a function's inputs, and results as text."""

from __future__ import annotations

import base64
import json
import mimetypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from millstream.functions import building
from millstream.reflected import Method
from shared.errors import InvalidRequest
from shared.values import Media, from_json, jsonable

TEXT = "google.protobuf.Timestamp"
FREE = "google.protobuf.Value"
MEDIA = "millstream.v1.Media"


def request_of(method: Method, name: str, pairs: Sequence[str]) -> Any:
    """Build the request of a call.

    Args:
        method: How it is called.
        name: The function's name, as given.
        pairs: `key=value`, where the value is text for text and JSON for the rest; `key=@FILE`
            reads it from a file, `key=@-` from stdin.

    Raises:
        InvalidRequest: One is no pair, is not JSON, cannot be read, or does not fit the function.
    """
    split = dict(_split(pair) for pair in pairs)
    if not method.service:
        return building(name, {key: _free(_text(key, given)) for key, given in split.items()})(
            method
        )
    known = method.request.DESCRIPTOR.fields_by_name
    return from_json(
        method.request,
        {key: _value(key, given, known.get(key)) for key, given in split.items()},
    )


def shown(result: Any, *, as_json: bool) -> str:
    """A result as a line: JSON, or text as it is and media described where that is not asked."""
    if not as_json and isinstance(result, str):
        return result
    if not as_json and isinstance(result, Media):
        return f"{result.type}, {len(result.data)} bytes"
    return json.dumps(result, default=_as_json, ensure_ascii=False)


def _split(pair: str) -> tuple[str, str]:
    key, equals, given = pair.partition("=")
    if not equals or not key:
        raise InvalidRequest(f"{pair!r}: want KEY=VALUE")
    return key, given


def _value(key: str, given: str, field: FieldDescriptor | None) -> Any:
    """A value in the JSON form of its type."""
    if field is None:
        return given  # It is refused by its name.
    kind = field.message_type.full_name if field.message_type is not None else ""
    if not field.is_repeated:
        if kind == MEDIA and given.startswith("@"):
            media_type, _ = mimetypes.guess_type(given[1:])
            return {"type": media_type or "application/octet-stream", "data": _coded(key, given)}
        if field.type == field.TYPE_BYTES:
            return _coded(key, given)
        if kind == TEXT or field.type in (field.TYPE_STRING, field.TYPE_ENUM):
            return _text(key, given)
        if kind == FREE:
            return _free(_text(key, given))
    try:
        return json.loads(_text(key, given))
    except ValueError as error:
        raise InvalidRequest(f"{key}: want JSON: {error}", field=key) from error


def _free(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(key: str, given: str) -> str:
    try:
        return _bytes(key, given).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{key}: {given} is not text: {error}", field=key) from error


def _coded(key: str, given: str) -> str:
    return base64.b64encode(_bytes(key, given)).decode()


def _bytes(key: str, given: str) -> bytes:
    if not given.startswith("@"):
        return given.encode()
    if given == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        message = f"{key}: cannot read {given[1:]}: {error.strerror}"
        raise InvalidRequest(message, field=key) from error


def _as_json(value: Any) -> Any:
    """What JSON has no type for; a numpy array as nested lists."""
    if hasattr(value, "tolist"):
        return {"dtype": str(value.dtype), "shape": value.shape, "data": value.tolist()}
    return jsonable(value)
