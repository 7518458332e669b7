"""What annotations say beyond a type: a field's number, a tensor's contract, a stream's end."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any, ClassVar

from shared.values.tensors import ITEMSIZES

ANY_LENGTH = "_"
"""The dimension that may differ everywhere."""


class End(Enum):
    """The type of END."""

    END = "end"


END = End.END
"""Yielded by a streaming batch in the place of a call that has ended."""


class Number:
    """`Annotated[T, Number(7)]`: the protobuf field number, to keep it where fields are moved.

    Args:
        number: From 1.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"Number({number!r}): want a field number from 1")
        self.number = number


class Tensor:
    """A numpy array: `Tensor["float32", "batch", 384]`.

    Where a type checker reads the annotation too: `Annotated[np.ndarray, Tensor("float32", 384)]`.

    Args:
        dtype: float32 and the like; "" is any.
        shape: Lengths, and names of free dimensions, where equal names are equal lengths and None
            is any; no shape, or `...`, is any shape.

    Raises:
        TypeError: There is no such number type or dimension.
    """

    framework: ClassVar[str] = "numpy"

    __slots__ = ("dtype", "shape")

    def __init__(self, dtype: Any = "", *shape: Any) -> None:
        self.dtype = _dtype(dtype)
        self.shape: tuple[int | str, ...] | None = None
        if shape and shape != (...,):
            self.shape = tuple(_dimension(one) for one in shape)

    def __class_getitem__(cls, contract: Any) -> Any:
        """As an annotation."""
        parts = contract if isinstance(contract, tuple) else (contract,)
        return Annotated[Any, cls(*parts)]


class TorchTensor(Tensor):
    """A torch tensor: as `Tensor`."""

    framework: ClassVar[str] = "torch"

    __slots__ = ()


def _dtype(dtype: Any) -> str:
    """The name of a number type, of numpy's and torch's too."""
    name = dtype if isinstance(dtype, str) else str(getattr(dtype, "__name__", dtype))
    name = name.removeprefix("torch.").removesuffix("_")
    if name and name not in ITEMSIZES:
        raise TypeError(
            f"a tensor of {name!r} is not supported: want one of {', '.join(ITEMSIZES)}"
        )
    return name


def _dimension(one: Any) -> int | str:
    if one is None or one == -1:
        return ANY_LENGTH
    if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
        return one
    if isinstance(one, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", one):
        return one
    raise TypeError(f"a tensor's dimension is {one!r}: want a length, a name, or None for any")
