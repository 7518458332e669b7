"""How processes end that cannot listen, and what a worker tells before its model is loaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.exits import EXIT_OK, EXIT_PORT, EXIT_SETTINGS
from tests.eventually import eventually
from tests.integration.processes import ROOT, START_LIMIT, Parts

NOBODY = {"MILLSTREAM_NATS": "nats://127.0.0.1:9", "MILLSTREAM_LOG_FORMAT": "json"}
"""No NATS: a port that is taken is found without it."""


@contextmanager
def taken_port() -> Iterator[int]:
    """A port of all addresses that somebody listens on."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield int(server.getsockname()[1])


def ended(module: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that does not get as far as to listen."""
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        timeout=START_LIMIT,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("kind", ["gateway", "workers"])
def test_a_metrics_port_in_use_is_said_and_ends_the_start(tmp_path: Path, kind: str) -> None:
    flags = {"gateway": ["--grpc-port", "0"], "workers": ["--engine", "sim"]}[kind]
    with taken_port() as port, Parts(tmp_path, NOBODY) as parts:
        parts.spawn("one", kind, [*flags, "--metrics-port", str(port)])
        assert parts.wait("one") == EXIT_PORT
        log = parts.log("one")
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    (said,) = [line for line in lines if line["event"] == "cannot_listen"]
    assert "in use" in said["reason"]
    if kind == "gateway":
        assert f"0.0.0.0:{port}" in said["reason"]
    else:
        assert said["port"] == port


@pytest.mark.parametrize("kind", ["gateway", "workers"])
def test_a_ready_file_that_cannot_be_written_is_refused(kind: str) -> None:
    done = ended(kind, "--ready-file", "/nope/x")
    assert done.returncode == EXIT_SETTINGS
    assert done.stderr.startswith("--ready-file: '/nope/x' is not allowed: a file in a folder")


def test_half_of_the_tls_settings_is_refused() -> None:
    done = ended("gateway", "--tls-cert", "/c.pem")
    assert (done.returncode, done.stderr) == (EXIT_SETTINGS, "tls_cert and tls_key: both or none\n")


def test_a_misspelt_variable_does_not_open_a_gateway() -> None:
    done = ended("gateway", MILLSTREAM_GATEWAY_API_KEY="keys.json")
    assert (done.returncode, done.stderr) == (
        EXIT_SETTINGS,
        "MILLSTREAM_GATEWAY_API_KEY: no such setting: is it MILLSTREAM_GATEWAY_API_KEYS?\n",
    )


def test_a_gateway_says_how_it_is_guarded_and_which_nats_it_misses(tmp_path: Path) -> None:
    secret = "hunter2"
    servers = f"nats://me:{secret}@127.0.0.1:9"
    with Parts(tmp_path, NOBODY | {"MILLSTREAM_NATS": servers}) as parts:
        parts.gateway(MILLSTREAM_GATEWAY_API_KEYS="")
        eventually(lambda: "nats_unreachable" in parts.log("gateway"), "it misses NATS")
    log = parts.log("gateway")  # All of its lines are whole now.
    assert secret not in log
    lines = [json.loads(line) for line in log.splitlines()]
    (listening,) = [line for line in lines if line["event"] == "listening"]
    assert (listening["api_keys"], listening["tls"]) == ("off", "off")
    missed = [line for line in lines if line["event"] == "nats_unreachable"]
    assert missed
    assert missed[0]["servers"] == ["nats://***@127.0.0.1:9"]
    assert "refused" in missed[0]["error"]
    failures = [line["failures"] for line in missed]
    assert failures == [2**power for power in range(len(failures))]


def test_a_worker_is_measured_before_its_model_is_loaded(tmp_path: Path) -> None:
    with taken_port() as port:
        pass  # It was free a moment ago.

    def scrape() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with Parts(tmp_path, NOBODY) as parts:
        parts.spawn("one", "workers", ["--engine", "sim", "--metrics-port", str(port)])
        text = eventually(scrape, "the worker's metrics are served", START_LIMIT)
        assert 'millstream_worker_state{model="sim",state="loading"} 1.0' in text
        assert 'millstream_worker_info{model="sim",worker="' in text
        os.kill(parts.pid("one"), signal.SIGTERM)
        assert parts.wait("one") == EXIT_OK
