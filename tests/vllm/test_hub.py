"""A hub that refuses, as a worker with vLLM tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.nats_server import NatsServer
from shared.exits import EXIT_MODEL
from tests.engines.hub import ABSENT, GATED, refusing_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GATED, ["it is gated", "--token-file", "You must be authenticated"]),
        (ABSENT, ["no such model, or hides it", "--token-file"]),
    ],
)
def test_what_the_hub_does_not_give(
    nats: NatsServer, tmp_path: Path, model: str, words: list[str]
) -> None:
    with refusing_hub(tmp_path / "home") as env:
        ended = subprocess.run(
            [sys.executable, "-m", "workers", "--nats", nats.url, "--engine", "vllm",
             "--model", model],
            capture_output=True, text=True, timeout=120, cwd=ROOT, env=os.environ | env,
        )  # fmt: skip
    assert ended.returncode == EXIT_MODEL, ended.stderr
    said = " ".join(ended.stderr.split())
    for word in ("there is no directory " + model, *words):
        assert word in said
