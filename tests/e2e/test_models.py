"""A model that cannot be served: the worker says why and ends with code 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from millstream.nats_server import NatsServer
from shared.exits import EXIT_MODEL
from tests.engines.hub import ABSENT, GATED, refusing_hub
from workers import bundled

pytest.importorskip("torch", reason="the torch extra is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


def run_worker(
    nats: NatsServer, *flags: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers", "--nats", nats.url, "--engine", "torch", *flags],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **(env or {})},
    )  # fmt: skip


def config(folder: Path, **changes: object) -> Path:
    """A checkpoint that is a changed config and nothing else."""
    raw = json.loads((bundled.PATH / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    return folder


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (lambda _: "/no/such/place", "no directory /no/such/place"),
    "no config": (lambda folder: folder, "no config.json"),
    "no causal model": (
        lambda folder: config(folder, architectures=["BertModel"]), "not a causal language model"
    ),
    "unknown architecture": (
        lambda folder: config(folder, architectures=["AbacusForCausalLM"]), "AbacusForCausalLM"
    ),
    "no weights": (config, "no weights"),
    "hub while offline": (lambda _: "someone/some-model", "HF_HUB_OFFLINE"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_a_model_that_cannot_be_loaded(nats: NatsServer, tmp_path: Path, case: str) -> None:
    place, words = PLACES[case]
    ended = run_worker(nats, "--model", str(place(tmp_path)))
    assert ended.returncode == EXIT_MODEL, ended.stderr
    assert words in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--context-length", "100000"], "context_length 100000"),
        (["--max-batch", "65536", "--engine-arg", "context_length=1024"], "out of memory"),
        (["--quantization", "awq"], "no --quantization"),
        (["--engine-arg", "speed=3"], "no argument speed"),
    ],
)
def test_settings_that_do_not_fit(nats: NatsServer, flags: list[str], words: str) -> None:
    ended = run_worker(nats, *flags)
    assert ended.returncode == EXIT_MODEL, ended.stderr
    assert words in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("model", "token", "words"),
    [
        (GATED, "", ["it is gated", "--token-file", "You must be authenticated"]),
        (GATED, "made-up", ["it is gated", "accept its terms", "not in the authorized list"]),
        (ABSENT, "", ["no such model, or hides it", "--token-file"]),
        (ABSENT, "made-up", ["no such model, or hides it", "check the id"]),
    ],
)
def test_a_hub_that_refuses(
    nats: NatsServer, tmp_path: Path, model: str, token: str, words: list[str]
) -> None:
    flags = ["--model", model]
    if token:
        (tmp_path / "token").write_text(token)
        flags += ["--token-file", str(tmp_path / "token")]
    with refusing_hub(tmp_path / "home") as env:
        ended = run_worker(nats, *flags, env=env)
    assert ended.returncode == EXIT_MODEL, ended.stderr
    said = " ".join(ended.stderr.split())
    for word in ("there is no directory " + model, *words):
        assert word in said
