from __future__ import annotations

from typing import Any

import pytest

from gateway.http import errors
from gateway.http.app import invalid
from shared.errors import InvalidRequest, MillstreamError, Overloaded, Unsupported

KINDS = sorted(MillstreamError.kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status_a_type_and_a_code(kind: str) -> None:
    error = MillstreamError.from_wire(kind, "what", "sampling.n", 0.2)
    number = errors.status(error)
    assert number == (400 if kind == "Unsupported" else error.http_status)
    body = errors.openai_body(error)["error"]
    assert body["message"] == "what"
    assert body["param"] == "sampling.n"
    assert (body["type"] == "server_error") is (number == 500)
    assert body["code"]
    assert errors.tgi_body(error)["error"] == "what"
    told = errors.headers(error)
    assert told["x-should-retry"] == ("true" if error.retryable else "false")
    assert told["retry-after"] == "1"
    assert told["retry-after-ms"] == "200"


def test_without_a_time_nothing_is_said_of_when_to_retry() -> None:
    assert set(errors.headers(Overloaded("full"))) == {"x-should-retry"}


def test_clients_retry_no_request_that_an_engine_cannot_serve() -> None:
    assert errors.openai_response(Unsupported("no")).status_code == 400
    assert errors.tgi_response(Unsupported("no")).status_code == 422


@pytest.mark.parametrize(
    ("error", "names", "message", "field"),
    [
        (InvalidRequest("sampling.n is 0", field="sampling.n"), {}, "n is 0", "n"),
        (
            InvalidRequest("sampling.max_tokens is 0", field="sampling.max_tokens"),
            {"sampling.max_tokens": "max_new_tokens"},
            "max_new_tokens is 0",
            "max_new_tokens",
        ),
        (InvalidRequest("the prompt is long", field="prompt"), {"prompt": "messages"},
         "the prompt is long", "messages"),
        (InvalidRequest("bad"), {}, "bad", ""),
        (InvalidRequest("sampling.n is 0", field="sampling.n"), None, "sampling.n is 0",
         "sampling.n"),
    ],
)  # fmt: skip
def test_fields_are_named_as_the_protocol_names_them(
    error: MillstreamError, names: dict[str, str] | None, message: str, field: str
) -> None:
    told = errors.renamed(error, names)
    assert (told.message, told.field) == (message, field)
    assert type(told) is type(error)


@pytest.mark.parametrize(
    ("problem", "field"),
    [
        (
            {"type": "missing", "loc": ("body", "messages", 0, "role"), "msg": "m"},
            "messages[0].role",
        ),
        ({"type": "x", "loc": ("body",), "msg": "m"}, ""),
        ({"type": "json_invalid", "loc": ("body", 7), "msg": "m", "ctx": {"error": "e"}}, ""),
        ({"type": "x", "loc": ("query", "n"), "msg": "m"}, "n"),
    ],
)
def test_pydantics_problems_name_the_field(problem: dict[str, Any], field: str) -> None:
    assert invalid([problem]).field == field
