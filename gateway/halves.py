"""Half of a surrogate pair in JSON: it can be written there, is no text, and is refused. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from shared.errors import InvalidRequest

LONGEST_FIELD = 200
"""Characters of a field's name in an error."""

Trail: TypeAlias = "tuple[Trail, str | int] | None"
"""Where a value is, from the inside out: joined only where it is told."""

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
    waiting: list[tuple[Trail, Any]] = [(None, value)]
    while waiting:
        trail, value = waiting.pop()
        if isinstance(value, str):
            if _HALF.search(value):
                raise _refusal(trail, "")
        elif isinstance(value, dict):
            if any(_HALF.search(name) for name in value):
                raise _refusal(trail, "a name in ")
            waiting.extend([((trail, name), item) for name, item in reversed(value.items())])
        elif isinstance(value, list):
            last = len(value) - 1
            items = enumerate(reversed(value))
            waiting.extend([((trail, last - place), item) for place, item in items])


def _refusal(trail: Trail, what: str) -> InvalidRequest:
    parts = []
    while trail is not None:
        trail, part = trail
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_FIELD]}")
    field = "".join(reversed(parts)).removeprefix(".")[:LONGEST_FIELD]
    return InvalidRequest(
        f"{what}{field or 'the body'} holds half of a surrogate pair, which is no text", field=field
    )
