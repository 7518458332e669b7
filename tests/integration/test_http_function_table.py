"""docs/http.md says what becomes of each field of functions; every line of its table is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.app import App
from shared import wire
from tests.integration.function_peer import FUNCTIONS
from tests.integration.http_peer import ROOT, Beside, call
from tests.integration.test_http_table import DOCUMENT, at

pytestmark = pytest.mark.asyncio(loop_scope="module")

BASES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "bag", "input": "a"},
    "/v1/models/{name}/predict": {"inputs": {"text": "a"}},
}


@dataclass(frozen=True)
class Line:
    """One line of the table; `path` begins with `answer` where it is not of the queued request."""

    endpoint: str
    field: str
    body: dict[str, Any]
    effect: str
    path: str
    expected: Any


def lines() -> Iterator[Line]:
    for text in (ROOT / DOCUMENT).read_text().splitlines():
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        endpoint = cells[0].strip("| `")
        if len(cells) < 4 or endpoint not in BASES:
            continue
        field, values = cells[1].strip("`"), re.findall(r"`([^`]+)`", cells[2])
        more = json.loads("{" + values[1] + "}") if len(values) > 1 else {}
        body = {**BASES[endpoint], **more, field: json.loads(values[0])}
        path, _, expected = (
            cells[4].strip("| `").partition(" = ") if len(cells) > 4 else ("", "", "")
        )
        effect = re.split(r"[ :]", cells[3])[0]
        yield Line(endpoint, field, body, effect, path, json.loads(expected or "null"))


LINES = list(lines())


@pytest.fixture(scope="module")
def beside() -> Beside:
    return FUNCTIONS


async def test_the_table_has_lines_for_every_endpoint() -> None:
    assert {line.endpoint for line in LINES} == BASES.keys()
    assert {line.effect for line in LINES} == {"honoured", "accepted", "refused"}
    assert all(bool(line.path) == (line.effect == "honoured") for line in LINES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.endpoint} {line.field}")
async def test_a_line(app: App, requests: list[wire.Request], line: Line) -> None:
    answer = await call(app, "POST", line.endpoint.replace("{name}", "echo@1"), line.body)
    if line.effect == "refused":
        assert answer.status == 400
        assert answer.error["param"] == line.field
        return
    assert answer.status == 200, answer.body
    if line.path:
        source, _, path = line.path.rpartition(" ")
        assert at(answer.json if source else requests[-1], path) == line.expected
