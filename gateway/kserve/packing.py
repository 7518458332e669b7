"""A function's values as tensors, by the types of its signature. Pure.

A single value is a tensor of one element, a list of them one of one dimension, an array itself.
Media are BYTES whose parameter `content_type` says what they are; what no tensor can hold is JSON.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.kserve import inference_pb2 as pb
from shared.errors import InvalidRequest
from shared.signature import EnumType, ListType, MediaType, Scalar, Signature, TensorType, Type
from shared.values import Media, Tensor, jsonable
from shared.values.tensors import fault

ANY = "ANY"
"""The datatype of an array that may be of any."""
CONTENT_TYPE = "content_type"

DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16",
    "BF16": "bfloat16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
    "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
_SCALARS = {"bool": "BOOL", "int64": "INT64", "double": "FP64"}
_MEDIA = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


def described(kind: Type) -> tuple[str, list[int]]:
    """The datatype and shape of a type; -1 is a free dimension."""
    match kind:
        case TensorType(dtype, shape):
            datatype = _DATATYPES[dtype] if dtype else ANY
            return datatype, [-1] if shape is None else [_length(one) for one in shape]
        case ListType(Scalar() | EnumType() as item):
            return described(item)[0], [-1]
        case Scalar(name):
            return _SCALARS.get(name, "BYTES"), [1]
    return "BYTES", [1]


def config_type(datatype: str) -> pb.DataType:
    """A datatype as a model's configuration names it."""
    name = "STRING" if datatype == "BYTES" else "INVALID" if datatype == ANY else datatype
    return getattr(pb, f"TYPE_{name}")  # type: ignore[no-any-return]


def read(request: pb.ModelInferRequest, signature: Signature) -> dict[str, Any]:
    """The parameters that a request's tensors are, as JSON has them, with bytes where it is base64.

    Raises:
        InvalidRequest: A tensor is unknown, given twice, or cannot be its parameter.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs",
            field="raw_input_contents",
        )
    fields = {field.name: field.type for field in signature.inputs.fields}
    found: dict[str, Any] = {}
    for place, given in enumerate(request.inputs):
        name = given.name[:80]
        if given.name not in fields or given.name in found:
            known = given.name in fields
            why = "is given twice" if known else f"is unknown: want {', '.join(fields) or 'none'}"
            raise InvalidRequest(f"input {name!r} {why}", field=name)
        try:
            found[name] = _value(fields[name], given, raw[place] if raw else None)
        except (ValueError, TypeError, RecursionError, struct.error) as error:
            raise InvalidRequest(f"input {name!r}: {error}", field=name) from None
    return found


def _value(kind: Type, given: Any, raw: bytes | None) -> Any:
    """What one input is.

    Raises:
        ValueError: It is something else; says why.
    """
    shape = list(given.shape)
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape[:8]}")
    if isinstance(kind, TensorType):
        return _array(given, shape, raw)
    wanted, _ = described(kind)
    items = _elements(given, raw)
    if (given.datatype == "BYTES") != (wanted == "BYTES"):
        raise ValueError(f"its datatype is {given.datatype[:20]!r}: want {wanted}")
    if math.prod(shape) != len(items):
        raise ValueError(f"it has {len(items)} elements: its shape is {shape[:8]}")
    if isinstance(kind, ListType) and isinstance(kind.item, Scalar | EnumType):
        return [_single(kind.item, item, given) for item in items]
    if len(items) != 1:
        raise ValueError(f"it has {len(items)} elements: want one")
    return _single(kind, items[0], given)


def _single(kind: Type, item: Any, given: Any) -> Any:
    match kind:
        case Scalar("bytes") | Scalar("bool") | Scalar("int64") | Scalar("double"):
            return item
        case Scalar("string") | Scalar("timestamp") | EnumType():
            return item.decode()
        case MediaType(name):
            said = given.parameters[CONTENT_TYPE].string_param if given.parameters else ""
            return {"type": said or _MEDIA[name], "data": item}
    return json.loads(item)


def _array(given: Any, shape: list[int], raw: bytes | None) -> dict[str, Any]:
    dtype = DTYPES.get(given.datatype)
    if dtype is None:
        raise ValueError(f"its datatype is {given.datatype[:20]!r}: want one of numbers")
    if raw is None:
        values = getattr(given.contents, _CONTENTS.get(given.datatype, ""), None)
        if values is None:
            raise ValueError(f"{given.datatype} is to be in raw_input_contents")
        raw = struct.pack(f"<{len(values)}{_FORMATS[given.datatype]}", *values)
    part, why = fault(dtype, shape, raw)
    if part:
        raise ValueError(f"its {part} {why}")
    return {"dtype": dtype, "shape": shape, "data": raw}


def _elements(given: Any, raw: bytes | None) -> Sequence[Any]:
    """The elements one by one."""
    if given.datatype == "BYTES":
        return list(given.contents.bytes_contents) if raw is None else _strings(raw)
    form = _FORMATS.get(given.datatype)
    if form is None:
        raise ValueError(f"its datatype is {given.datatype[:20]!r}")
    if raw is None:
        if given.datatype not in _CONTENTS:
            raise ValueError(f"{given.datatype} is to be in raw_input_contents")
        return list(getattr(given.contents, _CONTENTS[given.datatype]))
    return struct.unpack(f"<{len(raw) // struct.calcsize(form)}{form}", raw)


def _strings(raw: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(raw):
        (size,) = struct.unpack_from("<I", raw, place)
        place += 4 + size
        if place > len(raw):
            raise ValueError("its bytes are truncated")
        found.append(raw[place - size : place])
    return found


def add(response: pb.ModelInferResponse, name: str, kind: Type, value: Any) -> None:
    """Add an output, in the raw contents."""
    datatype, shape, raw, parameters = _written(kind, value)
    output = response.outputs.add(name=name, datatype=datatype, shape=shape)
    for key, text in parameters.items():
        output.parameters[key].string_param = text
    response.raw_output_contents.append(raw)


def _written(kind: Type, value: Any) -> tuple[str, Sequence[int], bytes, Mapping[str, str]]:
    if isinstance(value, Tensor):
        return _DATATYPES[value.dtype], value.shape, value.data, {}
    if isinstance(value, Media):
        return "BYTES", (1,), _framed([value.data]), {CONTENT_TYPE: value.type}
    datatype, shape = described(kind)
    if isinstance(kind, ListType) and shape == [-1]:
        items, item_kind = value, kind.item
    else:
        items, item_kind = [value], kind
    if datatype != "BYTES":
        raw = struct.pack(f"<{len(items)}{_FORMATS[datatype]}", *items)
    else:
        raw = _framed([_bytes(item_kind, item) for item in items])
    return datatype, (len(items),), raw, {}


def _bytes(kind: Type, item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    plain = jsonable(item)
    if isinstance(plain, str) and not (isinstance(kind, Scalar) and kind.kind == "json"):
        return plain.encode()
    return json.dumps(plain, separators=(",", ":")).encode()


def _framed(items: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _length(one: int | str) -> int:
    return one if isinstance(one, int) else -1
