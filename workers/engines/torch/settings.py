"""The engine's arguments, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from workers.engines.base import ModelLoadError

_OWN = ("model", "served_name")  # given by name, not among the arguments
_TEXTS = ("dtype", "device", "revision")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `TorchEngine` was given; see there."""

    model: str
    served_name: str
    dtype: str = "auto"
    device: str = "auto"
    max_batch: int = 64
    context_length: int | None = None
    prefill_chunk: int = 512
    threads: int | None = None
    revision: str | None = None

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Build them; raises `ModelLoadError` on an unknown name or a number below 1."""
        _check_names(values, _names() + _OWN)
        settings = cls(**values)
        for name in ("max_batch", "prefill_chunk", "threads"):
            value = getattr(settings, name)
            if value is not None and value < 1:
                raise ModelLoadError(f"torch engine argument {name}={value}: want at least 1")
        return settings


def parse(args: Mapping[str, str]) -> dict[str, Any]:
    """Arguments as strings, as values.

    Raises:
        ModelLoadError: An unknown name, or no number where one is wanted.
    """
    _check_names(args, _names())
    values: dict[str, Any] = {}
    for name, text in args.items():
        try:
            values[name] = text if name in _TEXTS else int(text)
        except ValueError:
            raise ModelLoadError(
                f"torch engine argument {name}={text!r}: want a whole number"
            ) from None
    return values


def _names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Settings) if field.name not in _OWN)


def _check_names(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ModelLoadError(
            f"the torch engine has no argument {', '.join(unknown)}; it has {', '.join(_names())}"
        )
