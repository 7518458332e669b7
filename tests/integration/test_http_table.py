"""docs/http.md says what becomes of each field; every line of its table is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.app import App
from shared import wire
from tests.integration.grpc_peer import channel
from tests.integration.http_peer import ROOT, Http, connect
from tests.integration.test_kserve import Client, ask, outputs

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = Path("docs/http.md")
TURNS = [{"role": "user", "content": "x"}]
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "sim", "messages": TURNS, "max_tokens": 2},
    "/v1/completions": {"model": "sim", "prompt": "hi", "max_tokens": 2},
    "/generate": {"model": "sim", "inputs": "hi", "parameters": {"max_new_tokens": 2}},
    "ModelInfer": {"text_input": "hi", "sampling_parameters": {"max_tokens": 2}},
}


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        more: Fields that are sent beside the line's own.
        path: Where the value is to be found, behind `request`, `answer`, `header`, `first`, `last`.
    """

    endpoint: str
    field: str
    value: Any
    more: dict[str, Any]
    effect: str
    path: str
    expected: Any

    @property
    def body(self) -> dict[str, Any]:
        body = json.loads(json.dumps({**BASES[self.endpoint], **self.more}))
        *outer, name = self.field.split(".")
        holder = body
        for key in outer:
            holder = holder[key]
        holder[name] = self.value
        if name == "max_completion_tokens":
            del body["max_tokens"]
        return dict(body)


def lines() -> Iterator[Line]:
    for text in (ROOT / DOCUMENT).read_text().splitlines():
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        if len(cells) < 4 or not text.startswith("| `") or cells[0].strip("| `") not in BASES:
            continue
        values = re.findall(r"`([^`]+)`", cells[2])
        effect = cells[3].split()[0]
        path, expected = "", None
        if len(cells) > 4 and cells[4].strip("| "):
            path, _, said = cells[4].strip("| `").partition(" = ")
            expected = json.loads(said)
        more = json.loads("{" + values[1] + "}") if len(values) > 1 else {}
        yield Line(
            cells[0].strip("| `"), cells[1].strip("`"), json.loads(values[0]), more, effect,
            path, expected,
        )  # fmt: skip


LINES = list(lines())


def at(holder: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(holder, dict):
            holder = holder[key]
        elif key.isdigit():
            holder = holder[int(key)]
        else:
            holder = getattr(holder, key)
    return holder


def check(line: Line, queued: list[wire.Request], said: dict[str, Any]) -> None:
    """`said` holds the answer, its headers, and the first and last event."""
    source, _, path = line.path.rpartition(" ")
    found = at(said[source] if source else queued[-1], path)
    assert found == (pytest.approx(line.expected) if isinstance(found, float) else line.expected)


async def test_the_table_has_lines_for_every_endpoint() -> None:
    assert {line.endpoint for line in LINES} == BASES.keys()
    assert {line.effect for line in LINES} == {"honoured", "accepted", "refused"}
    assert all(bool(line.path) == (line.effect == "honoured") for line in LINES)
    assert len(LINES) == sum(
        text.startswith(tuple(f"| `{endpoint}` |" for endpoint in BASES))
        for text in (ROOT / DOCUMENT).read_text().splitlines()
    )


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.endpoint} {line.field}")
async def test_a_line(app: App, requests: list[wire.Request], line: Line) -> None:
    if line.endpoint == "ModelInfer":
        await _infer(app, requests, line)
        return
    http = await connect(app)
    try:
        await http.send("POST", line.endpoint, line.body)
        head = await http.head()
        said = await _said(http, head, line)
    finally:
        http.abort()
    if line.effect == "refused":
        assert head.status in (400, 422)
        error = said["answer"]["error"]
        message = error if isinstance(error, str) else f"{error['param']} {error['message']}"
        assert line.field.rpartition(".")[2] in message
    else:
        assert head.status == 200, said
        if line.effect == "honoured":
            check(line, requests, said)


async def _said(http: Http, head: Any, line: Line) -> dict[str, Any]:
    said: dict[str, Any] = {"header": head.headers}
    if head.headers["content-type"].startswith("text/event-stream"):
        events = [event.data async for event in http.events(head)]
        said["first"] = events[0]
        said["last"] = events[-2] if events[-1] == "[DONE]" else events[-1]
    else:
        head.body = b"".join([part async for part in http.body(head)])
        said["answer"] = head.json
    return said


async def _infer(app: App, queued: list[wire.Request], line: Line) -> None:
    body = line.body
    message = ask(body.pop("text_input"), sampling=body.pop("sampling_parameters"), **body)
    async with channel(app.grpc_port) as connection:
        client = Client(connection)
        if line.effect == "refused":
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("ModelInfer", message)
            status = caught.value.code()
            assert status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
            return
        answer = outputs(await client.call("ModelInfer", message))
    check(line, queued, {"answer": answer})
