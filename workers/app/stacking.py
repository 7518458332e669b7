"""From the arguments of many calls to those of one, and from its result to theirs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from shared.signature import TensorType
from workers.app.failures import ContractError
from workers.app.items import Item
from workers.app.nodes import Node


def stacked(items: Sequence[Item], stacks: Mapping[str, str], contexts: Sequence[str]) -> Any:
    """What a function is called with: lists, and arrays with the items along axis 0."""
    names = items[0].arguments.keys() | set().union(*(item.arguments for item in items[1:]))
    given: dict[str, Any] = {}
    for name in names:
        values = [item.arguments.get(name) for item in items]
        given[name] = _stack(values, stacks[name]) if name in stacks else values
    for name in contexts:
        given[name] = [item.context for item in items]
    return given


def _stack(values: list[Any], framework: str) -> Any:
    module: Any = sys.modules[framework]  # The values are its arrays.
    return module.stack(values)


def rows(result: Any, size: int, output: Node | None) -> Sequence[Any]:
    """What each item gets of a result, or of a step.

    Args:
        result: What the function gave: a list, or an array with the items along axis 0.
        size: Items in the batch.
        output: What is promised for each; None for nothing.

    Raises:
        ContractError: It is for another number of items.
    """
    if output is None and result is None:
        return [None] * size
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(result, torch.Tensor):
        result = result.detach().cpu()  # At once, and in the function's thread.
    kind = type(result).__name__
    if isinstance(result, str | bytes | Mapping) or not hasattr(result, "__len__"):
        raise ContractError(f"the result: want a list with an item for each call, got {kind}")
    shape = getattr(result, "shape", None)
    if shape == () or len(result) != size:
        got = 0 if shape == () else len(result)
        raise ContractError(f"the result: want {size} items, one for each call, got {got}")
    if shape is not None and output is not None and not isinstance(output.type, TensorType):
        result = result.tolist()
    return list(result)
