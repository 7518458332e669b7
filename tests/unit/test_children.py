"""What `millstream up` does with the output of its processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from millstream.children import LONGEST_LINE, PythonChild
from shared import exits


async def test_a_line_without_end_is_shown_in_pieces() -> None:
    shown: list[str] = []
    child = PythonChild("w", [], Path("ready"), lambda _, line: shown.append(line))
    stream = asyncio.StreamReader(limit=1 << 30)
    stream.feed_data(b"one\n" + b"x" * (3 * LONGEST_LINE) + b"\ntwo")
    stream.feed_eof()
    await child._read(stream)
    assert (shown[0], shown[-1]) == ("one", "two")
    assert "".join(shown[1:-1]) == "x" * (3 * LONGEST_LINE)
    assert max(map(len, shown)) <= LONGEST_LINE + 65536


@pytest.mark.parametrize(
    ("code", "final"),
    [
        (exits.EXIT_SETTINGS, True),
        (exits.EXIT_MODEL, True),
        (exits.EXIT_PORT, True),
        (exits.EXIT_ENGINE, False),
        (-9, False),
    ],
)
def test_what_would_end_so_again_is_not_started_again(code: int, final: bool) -> None:
    assert PythonChild("w", [], Path("ready"), lambda *_: None).final(code) is final
