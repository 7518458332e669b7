"""A function's messages from and to plain values: for `Predict`, and for protocols with JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from gateway.typed.outlet import Convert
from millstream.v1 import inference_pb2 as pb
from millstream.v1 import types_pb2 as types
from shared import values
from shared.errors import InternalError, InvalidRequest
from shared.typed import Typed


def request_of(typed: Typed, inputs: Mapping[str, Any], *, json: bool = False) -> Any:
    """A function's request message of plain values, checked.

    Args:
        typed: The function's messages.
        inputs: Its parameters.
        json: Whether they are of JSON types only, else those of Python.

    Raises:
        InvalidRequest: They are not what the function takes; names the parameter.
    """
    make = values.from_json if json else values.to_message
    message = make(typed.request, inputs)
    typed.check(message)
    return message


def request_of_values(typed: Typed, inputs: Mapping[str, types.Value]) -> Any:
    """A function's request message of untyped values, checked.

    Raises:
        InvalidRequest: They are not what the function takes; names the parameter.
    """
    return request_of(typed, {name: values.from_value(value) for name, value in inputs.items()})


def parsed(typed: Typed, item: bytes) -> Any:
    """A function's response message.

    Raises:
        InternalError: The worker gave something else.
    """
    try:
        return typed.response.FromString(item)
    except DecodeError as error:
        raise InternalError(f"the worker gave no {typed.response.DESCRIPTOR.full_name}") from error


def converter(typed: Typed) -> Convert:
    """What turns a function's items into serialized `PredictResponse`s."""

    def convert(index: int, item: bytes) -> bytes:
        result = values.from_message(parsed(typed, item)).get("result")
        try:
            value = values.to_value(result)
        except InvalidRequest as error:
            raise InternalError(f"the worker gave no value: {error.message}") from error
        return pb.PredictResponse(result=value, index=index).SerializeToString()

    return convert
