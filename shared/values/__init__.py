"""Plain Python and JSON on one side, protobuf messages on the other, by descriptor alone.

The gateway has them for its untyped methods and for JSON, clients for what they call. In plain
Python a record is a dict, an array a `Tensor`, media `Media`, a time a datetime, an enum's member
its name. In JSON bytes are base64, a tensor is {"dtype", "shape", "data": base64 or nested lists},
media {"type", "data": base64}, a time RFC 3339.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor

from shared.values.fill import Fill
from shared.values.media import Media
from shared.values.tensors import Tensor, as_numpy, itemsize, tensor
from shared.values.unpack import fields, jsonable
from shared.values.untyped import from_value, to_value

__all__ = [
    "Media",
    "Tensor",
    "as_numpy",
    "from_json",
    "from_message",
    "from_value",
    "itemsize",
    "jsonable",
    "tensor",
    "to_json",
    "to_message",
    "to_value",
]

_PLAIN = Fill(json=False)
_JSON = Fill(json=True)


def to_message(cls_or_descriptor: Any, mapping: Mapping[str, Any], path: str = "") -> Any:
    """A message of plain Python.

    Args:
        cls_or_descriptor: The message's class or descriptor.
        mapping: Its fields by name; None is not given. Where a tensor is wanted, whatever
            `tensor` takes; where a record is, a dataclass too; where a time is, RFC 3339 too.
        path: Where it is, for errors.

    Raises:
        InvalidRequest: A name that is not known, or a value of a wrong type; `field` is the path.
    """
    message = _new(cls_or_descriptor)
    _PLAIN.message(message, mapping, path)
    return message


def from_message(message: Any) -> dict[str, Any]:
    """A message's fields as plain Python.

    What is not set is left out; lists and maps are always there.
    """
    return fields(message)


def from_json(cls_or_descriptor: Any, mapping: Mapping[str, Any], path: str = "") -> Any:
    """A message of JSON's types, as `to_message`.

    What is base64 in JSON may be bytes, and a time a datetime: so it is in msgpack.
    """
    message = _new(cls_or_descriptor)
    _JSON.message(message, mapping, path)
    return message


def to_json(message: Any) -> dict[str, Any]:
    """A message's fields as JSON's types, as `from_message`."""
    return {name: jsonable(value) for name, value in fields(message).items()}


def _new(cls_or_descriptor: Any) -> Any:
    if isinstance(cls_or_descriptor, Descriptor):
        return message_factory.GetMessageClass(cls_or_descriptor)()
    return cls_or_descriptor()
