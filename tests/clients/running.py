"""A stack for clients: a broker, a gateway with HTTP, and workers, each a process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Self

import pytest

from millstream.nats_server import NatsServer
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-clients"
VLLM = ROOT / ".venv-vllm"
TOKENIZER = ROOT / "workers" / "bundled" / "model"
PROGRAMS = Path(__file__).parent / "programs"
CHAT_MODEL = "tiny-stories"
LOADED = 240.0
"""Seconds that loading torch and a model may take on a busy machine."""

FUNCTIONS = "tests.integration.function_app:app"


class Clients:
    """What clients connect to.

    Attributes:
        base: The URL of the HTTP edge.
        target: Host and port of gRPC.
        chat: The served name of a model that chats: a real one where torch is installed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._nats = NatsServer(directory / "nats")
        self._processes: list[subprocess.Popen[bytes]] = []
        self.base = self.target = ""
        self.chat = CHAT_MODEL if importlib.util.find_spec("torch") else "sim"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self._nats.start()
        self.target, self.base, _ = self.gateway("gateway")
        self._spawn("sim", "workers", "--engine", "sim", "--engine-arg", "step_ms=2")
        self._spawn("functions", "workers", FUNCTIONS)
        if self.chat != "sim":
            self._spawn("torch", "workers", "--engine", "torch")
        eventually(lambda: self.serves(self.base), "the gateway serves all models", LOADED)

    def gateway(self, name: str, *flags: str) -> tuple[str, str, int]:
        """Start a gateway; returns its gRPC target, its HTTP base and its process id."""
        ready = self._directory / f"{name}.ready"
        hosts = ["--grpc-host", "127.0.0.1", "--http-host", "127.0.0.1"]
        ports = ["--grpc-port", "0", "--http-port", "0", "--http-cors", "*"]
        pid = self._spawn(name, "gateway", *hosts, *ports, "--ready-file", str(ready), *flags)
        eventually(ready.exists, f"{name} is ready", 60)
        target, http = ready.read_text().split()
        return target, f"http://{http}", pid

    def _spawn(self, name: str, module: str, *flags: str) -> int:
        common = ["--name", name, "--nats", self._nats.url, "--log-level", "warning"]
        command = [sys.executable, "-m", module, *flags, *common]
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self._processes.append(process)
        return process.pid

    def serves(self, base: str) -> bool:
        """Whether a gateway sees all models; functions come in the order of their app."""
        try:
            with urllib.request.urlopen(f"{base}/v1/models", timeout=5) as answer:
                names = {model["id"] for model in json.load(answer)["data"]}
        except OSError:
            return False
        return {"sim", self.chat, "sized@1"} <= names

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(20)
        self._nats.stop()

    def run(self, client: str, program: str, seconds: float = 300.0, **more: str) -> None:
        """Run a program in a client's environment, with `more` in its variables.

        Its assertions are the test.
        """
        command = [str(_interpreter(client)), str(PROGRAMS / program)]
        given = {
            "BASE_URL": self.base,
            "TARGET": self.target,
            "CHAT_MODEL": self.chat,
            "TOKENIZER": str(TOKENIZER),
        }
        done = subprocess.run(
            command,
            env={**os.environ, **given, **more},
            cwd=self._directory if client == "vllm" else HOME / client,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{program} failed:\n{done.stdout}{done.stderr}"
        assert done.stdout.rstrip().endswith("passed"), done.stdout


def missing(reason: str) -> None:
    """Skip at home, fail where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _interpreter(client: str) -> Path:
    if client == "vllm":
        if not (VLLM / ".ready").exists():
            missing("vLLM is not installed: make test-vllm")
        return VLLM / "bin" / "python"
    done = subprocess.run(
        [str(Path(__file__).parent / "setup.sh"), client], capture_output=True, text=True
    )
    if not (HOME / client / ".ready").exists():
        missing(f"{client} cannot be set up: {done.stderr.strip()[-500:]}")
    if (HOME / client / "node_modules").exists():
        return Path("node")
    return HOME / client / "bin" / "python"
