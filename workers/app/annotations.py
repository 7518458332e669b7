"""From annotations to types: what a parameter, a result or an attribute is on the wire."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum, Flag
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from shared.signature import (
    EnumType,
    Field,
    ListType,
    MapType,
    MediaType,
    Record,
    Scalar,
)
from workers.app.markers import Tensor
from workers.app.media import Audio, Image, Video
from workers.app.nodes import (
    Declared,
    Node,
    Slot,
    array_contract,
    bare,
    documented,
    plain,
    tensor_node,
)

_SCALARS: Mapping[Any, Scalar] = {
    str: Scalar("string"), int: Scalar("int64"), float: Scalar("double"), bool: Scalar("bool"),
    bytes: Scalar("bytes"), datetime: Scalar("timestamp"), Any: Scalar("json"),
    list: Scalar("json"), dict: Scalar("json"),
}  # fmt: skip
_MEDIA: Mapping[Any, MediaType] = {
    Image: MediaType("image"), Audio: MediaType("audio"), Video: MediaType("video"),
}  # fmt: skip
_LISTS = (list, abc.Sequence, tuple)
_MAPS = (dict, abc.Mapping)

SUPPORTED = (
    "str, int, float, bool, bytes, datetime, Enum, Literal of strings, list, tuple[T, ...], "
    "dict[str, T], dataclasses, pydantic models, numpy arrays, torch tensors, Image, Audio, Video, "
    "Any, and T | None for a whole parameter, attribute or result"
)


class Annotations:
    """Reads the annotations of one function.

    Args:
        where: The function, for errors.
        names: What annotations may name beyond their module: classes local to a function.
    """

    def __init__(self, where: str, names: Mapping[str, Any]) -> None:
        self._where = where
        self._names = dict(names)
        self._within: list[type] = []

    def refuse(self, path: str, why: str) -> TypeError:
        """The error for what is not supported."""
        return TypeError(f"{self._where}: {path}: {why}")

    def hints(self, owner: Any, path: str) -> dict[str, Any]:
        """The annotations of a function or class, evaluated."""
        try:
            return typing.get_type_hints(owner, localns=self._names, include_extras=True)
        except NameError as error:
            raise self.refuse(
                path, f"{error}: import it where the module is loaded, not for type checkers only"
            ) from None
        except TypeError as error:
            raise self.refuse(path, str(error)) from None

    def slots(self, declared: list[Declared], path: str) -> tuple[Slot, ...]:
        """Parameters or attributes in order, numbered; pinned numbers are left to their owners."""
        read = [bare(one.annotation) for one in declared]
        pinned = {number for _, _, number in read if number is not None}
        free = (number for number in range(1, len(declared) + len(pinned) + 1)
                if number not in pinned)  # fmt: skip
        slots = []
        for one, (annotation, optional, number) in zip(declared, read, strict=True):
            node = self.node(annotation, f"{path}{one.name!r}")
            slots.append(
                Slot(
                    Field(
                        one.name,
                        next(free) if number is None else number,
                        node.type,
                        required=not (one.has_default or optional),
                        default=documented(one.default),
                    ),
                    node,
                    one.key or one.name,
                    none=optional and not one.has_default,
                    optional=optional or (one.has_default and one.default is None),
                )
            )
        return tuple(slots)

    def result(self, annotation: Any) -> tuple[Node, bool]:
        """What is returned or yielded, and whether it may be None."""
        inner, optional, _ = bare(annotation)
        return self.node(inner, "the result"), optional

    def node(self, annotation: Any, path: str) -> Node:
        """Read one annotation.

        Raises:
            TypeError: It is not supported; says what is.
        """
        if isinstance(annotation, typing.NewType):
            return self.node(annotation.__supertype__, path)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            contracts = [one for one in arguments[1:] if isinstance(one, Tensor)]
            if contracts:
                return tensor_node(contracts[0])
            return self.node(arguments[0], path)
        if annotation in _MEDIA:
            return Node(_MEDIA[annotation], annotation)
        if isinstance(annotation, type) and issubclass(annotation, Tensor):
            return tensor_node(annotation())
        if (array := array_contract(annotation, origin, arguments)) is not None:
            return tensor_node(array)
        if origin is None and annotation in _SCALARS:
            return Node(_SCALARS[annotation])
        if origin is Literal:
            return self._literal(arguments, path)
        if origin in _LISTS or origin in _MAPS:
            return self._container(origin, arguments, path)
        if origin in (Union, types.UnionType):
            raise self._union(arguments, path)
        if isinstance(annotation, type) and origin is None:
            return self._class(annotation, path)
        raise self._unsupported(annotation, path)

    def _unsupported(self, annotation: Any, path: str) -> TypeError:
        name = getattr(annotation, "__name__", "") if isinstance(annotation, type) else ""
        return self.refuse(path, f"{name or annotation} is not supported; use {SUPPORTED}")

    def _union(self, arguments: tuple[Any, ...], path: str) -> TypeError:
        if type(None) in arguments and len(arguments) == 2:
            return self.refuse(path, "values in a list or dict cannot be None: leave them out")
        return self.refuse(path, "a union of types is not supported: choose one, or say Any")

    def _literal(self, arguments: tuple[Any, ...], path: str) -> Node:
        if not all(isinstance(one, str) for one in arguments):
            raise self.refuse(path, "a Literal of anything but strings is not supported: use Enum")
        name = "".join(re.findall(r"'(\w+)'", path)[-1:]).title().replace("_", "")
        return Node(EnumType(name or "Choice", tuple(arguments)))

    def _container(self, origin: Any, arguments: tuple[Any, ...], path: str) -> Node:
        if not arguments and origin in _SCALARS:  # typing.List alone, say.
            return Node(_SCALARS[origin])
        if origin in _MAPS:
            if arguments[0] is not str:
                raise self.refuse(path, "the keys of a dict must be str: dict[str, T]")
            value = self.node(arguments[1], f"{path}[...]")
            return Node(MapType(value.type), dict, value)
        if origin is tuple and (len(arguments) != 2 or arguments[1] is not ...):
            raise self.refuse(path, "a tuple of fixed length is not supported: use a dataclass")
        item = self.node(arguments[0], f"{path}[...]")
        return Node(ListType(item.type), tuple if origin is tuple else list, item)

    def _class(self, cls: type, path: str) -> Node:
        if issubclass(cls, Enum) and not issubclass(cls, Flag):
            return Node(EnumType(plain(cls.__name__), tuple(m.name for m in cls)), cls)
        model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
        if model is not None and issubclass(cls, model):
            return self._record(cls, self._of_model, path)
        if dataclasses.is_dataclass(cls):
            return self._record(cls, self._of_dataclass, path)
        raise self._unsupported(cls, path)

    def _record(self, cls: type, read: Callable[[Any, str], list[Declared]], path: str) -> Node:
        if cls in self._within:
            raise self.refuse(path, f"{cls.__name__} contains itself: use Any for a tree")
        self._within.append(cls)
        slots = self.slots(read(cls, path), f"{path}.")
        self._within.pop()
        fields = tuple(slot.field for slot in slots)
        return Node(Record(plain(cls.__name__), fields), cls, slots=slots)

    def _of_dataclass(self, cls: Any, path: str) -> list[Declared]:
        hints = self.hints(cls, path)
        missing = dataclasses.MISSING
        return [
            Declared(
                one.name,
                hints[one.name],
                has_default=one.default is not missing or one.default_factory is not missing,
                default=None if one.default is missing else one.default,
            )
            for one in dataclasses.fields(cls)
            if one.init
        ]

    def _of_model(self, cls: Any, path: str) -> list[Declared]:
        hints = self.hints(cls, path)
        return [
            Declared(
                name,
                hints[name],
                has_default=not info.is_required(),
                default=None if info.is_required() else info.get_default(),
                key=_key(name, info.validation_alias),
            )
            for name, info in cls.model_fields.items()
        ]


def _key(name: str, alias: Any) -> str:
    """What pydantic's validation takes an attribute by: its name, its alias, or the first of it."""
    choices = getattr(alias, "choices", [alias])
    return next((one for one in choices if isinstance(one, str)), name)
