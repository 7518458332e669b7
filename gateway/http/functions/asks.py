"""What a request says: a body's members, a query's parameters, and the headers beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import HTTPConnection

from gateway import validate
from gateway.door import LONGEST
from gateway.halves import refuse_halves
from gateway.http.front import TIMEOUT, seconds_of
from gateway.http.functions.pack import MSGPACK_NAMES, read
from gateway.typed.options import LABEL, Options, context_metadata, urgency
from shared.errors import InvalidRequest
from shared.signature import EnumType, Field, ListType, Scalar, Signature, Type

MEMBERS = ("inputs", "request_id", "priority", "labels", "timeout")
"""What a body may hold."""

_OURS = frozenset({"x-request-id", "x-priority", TIMEOUT, "traceparent", "host"}) | {
    "connection",
    "upgrade",
}
_ABOUT = ("accept", "content-", "sec-", "transfer-", "keep-", "cache-", "last-event-")
"""How headers begin that speak of the transfer, which is none of a function's business."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        inputs: The parameters, as JSON has them or as msgpack has.
        options: How it is to be run.
        packed: Whether it came as msgpack.
    """

    inputs: Mapping[str, Any]
    options: Options
    packed: bool = False


def from_body(connection: HTTPConnection, data: bytes) -> Ask:
    """Read a body, JSON or msgpack by its content type.

    Raises:
        InvalidRequest: What is wrong with it.
    """
    packed = media_type(connection.headers.get("content-type", "")) in MSGPACK_NAMES
    return from_members(connection, read(data, packed=packed), packed=packed)


def from_members(connection: HTTPConnection, members: Mapping[str, Any], *, packed: bool) -> Ask:
    """Read what a body or a message holds; the connection's headers say what it leaves out.

    Raises:
        InvalidRequest: A member that is unknown, or of a wrong type.
    """
    for name in members:
        if name not in MEMBERS:
            raise InvalidRequest(
                f"{str(name)[:64]!r} is not known: want {', '.join(MEMBERS)}; a function's "
                "parameters go into inputs",
                field=str(name)[:64],
            )
    inputs = members.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InvalidRequest("inputs must be an object: the parameters by name", field="inputs")
    return Ask(inputs, _options(connection, members), packed)


def from_query(
    connection: HTTPConnection, signature: Signature, pairs: Iterable[tuple[str, str]]
) -> Ask:
    """Read query parameters as a function's own: a list's repeat, what is no scalar is JSON.

    Raises:
        InvalidRequest: One that the function has not, or that is no value of its type.
    """
    fields = {field.name: field for field in signature.inputs.fields}
    inputs: dict[str, Any] = {}
    for name, text in pairs:
        field = fields.get(name)
        if field is None:
            raise InvalidRequest(
                f"{name[:64]!r} is not known: want {', '.join(fields) or 'nothing'}",
                field=name[:64],
            )
        if _repeats(field.type):
            assert isinstance(field.type, ListType)
            inputs.setdefault(name, []).append(_value(field, field.type.item, text))
        elif name in inputs:
            raise InvalidRequest(f"{name} is given twice", field=name)
        else:
            inputs[name] = _value(field, field.type, text)
    return Ask(inputs, _options(connection, {}))


def media_type(header: str) -> str:
    """A media type without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


def _options(connection: HTTPConnection, members: Mapping[str, Any]) -> Options:
    headers = [(name.lower(), value) for name, value in connection.headers.items()]
    labels = {k.removeprefix(LABEL): v for k, v in headers if k.startswith(LABEL)}
    options = Options(
        request_id=connection.state.request_id,
        traceparent=connection.headers.get("traceparent", ""),
        tenant=connection.state.tenant,
        urgency=urgency(connection.headers.get("x-priority", "")),
        labels=validate.check_labels(labels | _labels(members.get("labels"))),
        metadata=context_metadata(
            (name, value)
            for name, value in headers
            if name not in _OURS and not name.startswith(_ABOUT)
        ),
        seconds=seconds_of(connection),
    )
    if (given := members.get("request_id")) is not None:
        options = replace(options, request_id=_text("request_id", given))
        validate.check_request_id(options.request_id)
        connection.state.request_id = options.request_id
    if (given := members.get("priority")) is not None:
        options = replace(options, urgency=urgency(_text("priority", given)))
    if (given := members.get("timeout")) is not None:
        if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
            raise InvalidRequest("timeout must be seconds above 0", field="timeout")
        options = replace(options, seconds=float(min(given, LONGEST)))
    return options


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text", field=name)
    return value


def _labels(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(
        isinstance(part, str) for pair in given.items() for part in pair
    ):
        raise InvalidRequest("labels must be texts by name", field="labels")
    return given


def _repeats(kind: Type) -> bool:
    return isinstance(kind, ListType) and isinstance(kind.item, Scalar | EnumType)


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


_READ: Mapping[str, Callable[[str], Any]] = {
    "int64": int,
    "double": float,
    "bool": _boolean,
    "json": json.loads,
}


def _value(field: Field, kind: Type, text: str) -> Any:
    """One parameter as JSON has it; text, times, base64 and an enum's names are as they are."""
    if isinstance(kind, EnumType) or (isinstance(kind, Scalar) and kind.kind not in _READ):
        return text
    convert = _READ[kind.kind] if isinstance(kind, Scalar) else json.loads
    try:
        value = convert(text)
    except (ValueError, KeyError, RecursionError):
        what = kind.kind if isinstance(kind, Scalar) else "JSON"
        raise InvalidRequest(
            f"{field.name} is {text[:80]!r}, which is no {what}", field=field.name
        ) from None
    refuse_halves({field.name: value})
    return value
