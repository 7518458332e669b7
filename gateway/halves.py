"""Half of a surrogate pair in JSON: it can be written there, is no text, and is refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from shared.errors import InvalidRequest

LONGEST_FIELD = 200
"""Characters of a field's name in an error."""

_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\0")
"""A surrogate as an escape or in bytes (`json` reads those too), or UTF-16, which may hold one."""
_HALF = re.compile("[\ud800-\udfff]")


def may_hold_half(data: bytes) -> bool:
    """Whether JSON has what its values are to be looked at for; costs a fraction of reading it."""
    if b"\\u" in data or b"\xed" in data or b"\0" in data:
        return _SUSPECT.search(data) is not None
    return False


def refuse_halves(value: Any) -> None:
    """Look at all names and texts of a JSON value.

    Raises:
        InvalidRequest: One holds half of a surrogate pair; names the first such field, or for a
            name the object that has it.
    """
    if isinstance(value, str) and _HALF.search(value):
        raise _refusal([], "")
    trail: list[str | int] = []
    waiting = [_items(value, trail)]
    while waiting:
        for part, item in waiting[-1]:
            kind = type(item)
            if kind is str:
                if _HALF.search(item):
                    raise _refusal([*trail, part], "")
            elif kind is dict or kind is list:
                trail.append(part)
                waiting.append(_items(item, trail))
                break  # Into it, and then on from here.
        else:
            waiting.pop()
            if trail:
                trail.pop()


def _items(value: Any, trail: list[str | int]) -> Iterator[tuple[str | int, Any]]:
    if type(value) is dict:
        if any(_HALF.search(name) for name in value):
            raise _refusal(trail, "a name in ")
        return iter(value.items())
    return enumerate(value if type(value) is list else ())


def _refusal(trail: Sequence[str | int], what: str) -> InvalidRequest:
    parts = [f"[{one}]" if isinstance(one, int) else f".{one[:LONGEST_FIELD]}" for one in trail]
    field = "".join(parts).removeprefix(".")[:LONGEST_FIELD]
    return InvalidRequest(
        f"{what}{field or 'the body'} holds half of a surrogate pair, which is no text", field=field
    )
