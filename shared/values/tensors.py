"""Arrays of numbers as `millstream.v1.Tensor` carries them; numpy is imported where asked for."""

from __future__ import annotations

import importlib
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest

ITEMSIZES = {
    "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
"""Bytes of one number, by the dtype's name."""

MOST_DIMENSIONS = 32
"""More than any array has; bounds what a product of dimensions can cost."""

_FORMATS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
_KINDS = {"?": "bool"} | dict.fromkeys("bhilqn", "int") | dict.fromkeys("BHILQN", "uint")
_KINDS |= dict.fromkeys("efd", "float")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array of numbers.

    Attributes:
        dtype: One of ITEMSIZES.
        shape: The length of each dimension; none is a scalar.
        data: The numbers, little-endian, the last dimension running fastest.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def itemsize(dtype: str) -> int:
    """Bytes of one number; 0 where the dtype is not known."""
    return ITEMSIZES.get(dtype, 0)


def fault(dtype: str, shape: Sequence[int], data: bytes) -> tuple[str, str]:
    """What is wrong with an array: the part of it ("dtype", ...) and why; two "" where nothing."""
    size = ITEMSIZES.get(dtype)
    if size is None:
        return "dtype", f"{_short(dtype)} is not known: want one of {', '.join(ITEMSIZES)}"
    if len(shape) > MOST_DIMENSIONS:
        return "shape", f"has {len(shape)} dimensions: want at most {MOST_DIMENSIONS}"
    expected = math.prod(shape) * size
    if len(data) != expected:
        return "data", (
            f"is {len(data)} bytes long: want {expected} for {dtype} of shape {list(shape)}"
        )
    if dtype == "bool" and data.strip(b"\0\1"):
        return "data", "holds bytes other than 0 and 1: want those for bool"
    return "", ""


def tensor(value: Any, path: str = "") -> Tensor:
    """The array that a value is.

    Args:
        value: A Tensor, a numpy or torch array, or anything else with the buffer protocol or
            `__array__`.
        path: Where it is, for the error.

    Raises:
        InvalidRequest: It is none, or its numbers are of a type that tensors have not.
    """
    if isinstance(value, Tensor):
        part, why = fault(value.dtype, value.shape, value.data)
        if part:
            raise InvalidRequest(f"{join(path, part)} {why}", field=join(path, part))
        return value
    if hasattr(value, "detach"):
        value = _of_torch(value)
        if isinstance(value, Tensor):
            return value
    elif not hasattr(value, "__array_interface__") and hasattr(value, "__array__"):
        value = value.__array__()
    dtype = str(getattr(value, "dtype", ""))
    if dtype == "bfloat16":
        return Tensor(dtype, tuple(value.shape), value.tobytes())
    if dtype.startswith(">"):
        value = value.astype(value.dtype.newbyteorder("<"))
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):
        view = None
    kind = _KINDS.get(view.format.lstrip("<=@")) if view is not None else None
    if view is None or kind is None or isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRequest(
            f"{path or 'the value'} is {_name(value)}: want an array of numbers", field=path
        )
    name = kind if kind == "bool" else f"{kind}{view.itemsize * 8}"
    return Tensor(name, tuple(view.shape or ()), view.tobytes())


def as_numpy(value: Tensor) -> Any:
    """A numpy array over the tensor's bytes, read-only.

    bfloat16, which numpy has not, comes as ml_dtypes has it, or as uint16 where that is not
    installed.
    """
    import numpy

    dtype: Any = value.dtype
    if dtype == "bfloat16":
        try:
            dtype = importlib.import_module("ml_dtypes").bfloat16
        except ImportError:
            dtype = numpy.uint16
    else:
        dtype = numpy.dtype(dtype).newbyteorder("<")
    return numpy.frombuffer(value.data, dtype).reshape(value.shape)


def packed(nested: Any, dtype: str, path: str) -> Tensor:
    """The tensor that nested lists of numbers are.

    Raises:
        InvalidRequest: They are ragged, or hold what the dtype has not.
    """
    if dtype not in ITEMSIZES:
        part, why = fault(dtype, (), b"")
        raise InvalidRequest(f"{join(path, part)} {why}", field=join(path, part))
    shape: list[int] = []
    inner = nested
    while isinstance(inner, list) and len(shape) < MOST_DIMENSIONS:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    field = join(path, "data")
    try:
        numbers = list(_flat(nested, shape, 0))
        if dtype == "bfloat16":
            data = b"".join(struct.pack("<f", number)[2:] for number in numbers)
        else:
            if dtype == "bool" and not all(type(number) is bool for number in numbers):
                raise TypeError("want true or false")
            data = struct.pack(f"<{len(numbers)}{_FORMATS[dtype]}", *numbers)
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{field} is no array of {dtype}: {error}", field=field) from None
    return Tensor(dtype, tuple(shape), data)


def join(path: str, part: str) -> str:
    """The path of a part of what is at a path."""
    return f"{path}.{part}" if path else part


def _flat(nested: Any, shape: list[int], depth: int) -> Iterator[Any]:
    if depth == len(shape):
        if not isinstance(nested, bool | int | float):
            raise ValueError(f"want a number, got {_name(nested)}")
        yield nested
        return
    if not isinstance(nested, list) or len(nested) != shape[depth]:
        raise ValueError("its lists have different lengths")
    for inner in nested:
        yield from _flat(inner, shape, depth + 1)


def _of_torch(value: Any) -> Any:
    value = value.detach().cpu()
    if str(value.dtype) != "torch.bfloat16":
        return value.numpy()
    bits = value.contiguous().view(sys.modules["torch"].int16).numpy()
    return Tensor("bfloat16", tuple(value.shape), bits.tobytes())


def _name(value: Any) -> str:
    return type(value).__name__


def _short(text: str) -> str:
    return repr(text[:32]) if text else "an empty dtype"
