"""What a function with `batch=True` says of the batch, and what that means for one item of it."""

from __future__ import annotations

import collections.abc as abc
import types
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from workers.app.annotations import Annotations
from workers.app.context import Context
from workers.app.markers import ANY_LENGTH, End, Number, Tensor
from workers.app.nodes import array_contract, bare

_LISTS = (list, tuple, abc.Sequence)


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """How calls of a function run together.

    Attributes:
        stacked: The parameters that come as one array, by their framework: numpy or torch.
        max_size: Items at once, at most; 0 leaves it to the engine.
        target: Seconds that a call should take; 0 leaves it to the engine.
    """

    stacked: abc.Mapping[str, str]
    max_size: int = 0
    target: float = 0.0


def is_contexts(annotation: Any) -> bool:
    """Whether it asks for the Context of each call."""
    return get_origin(annotation) in _LISTS and get_args(annotation)[:1] == (Context,)


def is_tensor(annotation: Any) -> bool:
    """Whether it is one array for the whole batch."""
    whole, _, _ = bare(annotation)
    return _contract(whole, get_origin(whole), get_args(whole)) is not None


def item(annotation: Any, path: str, annotations: Annotations) -> Any:
    """The annotation of one item, of a parameter's or a result's for the whole batch.

    Raises:
        TypeError: It is not about a batch; says what to write.
    """
    whole, optional, number = bare(annotation)
    if optional:
        raise annotations.refuse(
            path, "the batch itself is never None: write list[T | None] for items that may be"
        )
    origin, arguments = get_origin(whole), get_args(whole)
    tensor = _contract(whole, origin, arguments)
    if tensor is not None:
        found: Any = Annotated[Any, _row(tensor, path, annotations)]
    elif origin in _LISTS and (origin is not tuple or arguments[1:] == (...,)):
        found = arguments[0]
    else:
        name = getattr(whole, "__name__", str(whole)) if origin is None else str(whole)
        raise annotations.refuse(
            path, f"is {name}; with batch=True it is for the whole batch: write list[{name}], "
            f'or Tensor["float32", "batch", ...] for arrays stacked on axis 0'
        )  # fmt: skip
    return found if number is None else Annotated[found, Number(number)]


def result(annotation: Any, annotations: Annotations, *, streaming: bool) -> Any:
    """The annotation of one item of the result: without what only a batch has.

    An exception in an item's place fails it; of a stream, None is nothing and END its end.

    Raises:
        TypeError: It is not about a batch; says what to write.
    """
    inner = item(annotation, "the result", annotations)
    if get_origin(inner) not in (Union, types.UnionType):
        return inner
    kept = [one for one in get_args(inner) if not _is_mark(one, streaming=streaming)]
    if not kept:
        raise annotations.refuse("the result", f"is {annotation}: say what an item is")
    return Union[tuple(kept)]  # noqa: UP007  # Made of a list.


def _is_mark(one: Any, *, streaming: bool) -> bool:
    if isinstance(one, type) and issubclass(one, BaseException):
        return True
    return streaming and one in (End, type(None))


def _contract(whole: Any, origin: Any, arguments: tuple[Any, ...]) -> Tensor | None:
    if origin is Annotated:
        return next((one for one in arguments[1:] if isinstance(one, Tensor)), None)
    if isinstance(whole, type) and issubclass(whole, Tensor):
        return whole()
    return array_contract(whole, origin, arguments)


def _row(tensor: Tensor, path: str, annotations: Annotations) -> Tensor:
    """The contract without its first dimension, which is the batch."""
    if tensor.shape is None:
        return type(tensor)(tensor.dtype)
    if not tensor.shape or isinstance(tensor.shape[0], int):
        raise annotations.refuse(
            path, "the first dimension of a batch's tensor is free: "
            f'write Tensor["{tensor.dtype or "float32"}", "batch", ...]'
        )  # fmt: skip
    row = type(tensor)(tensor.dtype)
    # A dimension of the batch's length again would be one of the whole batch: any, for an item.
    batch = tensor.shape[0]
    row.shape = tuple(ANY_LENGTH if one == batch else one for one in tensor.shape[1:])
    return row
