"""The tables of docs/operations.md are those of the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.tables import DOCUMENT, filled

ROOT = Path(__file__).parents[2]
COUNTERS = {"count", "_count"}
EVENTS = {"events", "_events"}
VERDICTS = {"Verdict", "fail_over", "_fail_over"}


def test_the_tables_are_current() -> None:
    text = DOCUMENT.read_text()
    assert text == filled(text), "run python -m tools.tables"


def told(place: str) -> list[str]:
    """The first column of a table of events."""
    _, _, rest = DOCUMENT.read_text().partition(f"<!-- events: {place} -->\n")
    rows = rest.partition("<!-- end -->")[0].splitlines()[2:]
    return [row.split("`")[1] for row in rows]


def nodes(package: str) -> Iterator[tuple[ast.Module, ast.AST]]:
    for path in (ROOT / package).rglob("*.py"):
        module = ast.parse(path.read_text())
        for node in ast.walk(module):
            yield module, node


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def texts(node: ast.expr, module: ast.Module) -> Iterator[str]:
    """The strings that an expression may be; what is put into one is its CAUSE."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "CAUSE" for part in node.values
        )
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, module)
        yield from texts(node.orelse, module)
    elif isinstance(node, ast.Name):
        for line in module.body:
            if isinstance(line, ast.Assign) and name_of(line.targets[0]) == node.id:
                yield from texts(line.value, module)


def counted(package: str) -> set[str]:
    """What is counted as an event: `events[...]`, and the one argument of a `count`."""
    found: set[str] = set()
    for module, node in nodes(package):
        if isinstance(node, ast.Subscript) and name_of(node.value) in EVENTS:
            found.update(texts(node.slice, module))
        elif isinstance(node, ast.Call) and name_of(node.func) in COUNTERS and len(node.args) == 1:
            found.update(texts(node.args[0], module))
    return found


@pytest.mark.parametrize(("place", "package"), [("gateway", "gateway"), ("worker", "workers")])
def test_every_event_that_is_counted_is_told(place: str, package: str) -> None:
    assert told(place) == sorted(counted(package) | counted("shared"))


def test_every_cause_is_told() -> None:
    found: set[str] = set()
    for module, node in nodes("gateway"):
        if isinstance(node, ast.Call) and name_of(node.func) in VERDICTS:
            found.update(text for part in node.args for text in texts(part, module))
    assert told("causes") == sorted(found)
