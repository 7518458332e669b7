from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared import telemetry
from shared.settings import LogFormat


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def failing(prompt: str) -> float:
    return len(prompt) / 0


def test_json_lines_say_who_and_which_request(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", "json", service="gateway", name="gw")
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("a").info("accepted", tokens=3)
    logging.getLogger("library").warning("odd %s", "thing")
    structlog.get_logger("a").debug("hidden")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["event"] == "accepted"
    assert (first["service"], first["name"], first["request_id"]) == ("gateway", "gw", "r1")
    assert (first["level"], first["tokens"]) == ("info", 3)
    assert (second["event"], second["logger"]) == ("odd thing", "library")
    assert "request_id" not in second


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_a_request_says_is_never_logged(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("debug", log_format, service="worker", name="w")
    log = structlog.get_logger("a")
    log.info("accepted", prompt="".join(("hu", "sh")), token_ids=(1,))
    secret = "".join(("hu", "sh"))
    try:
        failing(secret)
    except ZeroDivisionError:
        log.exception("failed")
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "hush" not in said
