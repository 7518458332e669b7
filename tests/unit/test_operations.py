"""The tables of docs/operations.md are those of the code."""

from __future__ import annotations

from tools.tables import DOCUMENT, filled


def test_the_tables_are_current() -> None:
    text = DOCUMENT.read_text()
    assert text == filled(text), "run python -m tools.tables"
