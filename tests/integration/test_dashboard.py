"""Every panel of the dashboard shows something: a real Prometheus scrapes a stack under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from millstream import Client
from millstream.nats_server import NatsServer
from shared.errors import MillstreamError
from tests.eventually import eventually
from tests.integration.processes import ROOT, Parts
from tests.ports import free_ports

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "millstream.json"
CONFIG = """\
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: gateway
    static_configs: [{ targets: ["127.0.0.1:%d"] }]
  - job_name: worker
    static_configs: [{ targets: ["127.0.0.1:%d", "127.0.0.1:%d"] }]
"""


def queries() -> list[tuple[str, str]]:
    """Title and PromQL of everything that the dashboard draws."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "10s"))
        for panel in panels
        for target in panel.get("targets", ())
    ]


def test_the_dashboard_is_the_one_that_the_table_makes() -> None:
    made = subprocess.run(
        [sys.executable, "tools/dashboard.py"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert made.stdout == DASHBOARD.read_text(), "run tools/dashboard.py"


class Prometheus:
    """A server of its own that scrapes a gateway and two workers."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        config = folder / "prometheus.yml"
        config.write_text(CONFIG % tuple(ports))
        (self._port,) = free_ports(1)
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def query(self, text: str) -> list[Any]:
        """The samples of an instant query that are numbers."""
        assert self._process.poll() is None, self._log.read_text()
        asked = urllib.parse.urlencode({"query": text})
        try:
            url = f"http://127.0.0.1:{self._port}/api/v1/query?{asked}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                told = json.loads(answer.read())
        except OSError:
            return []
        return [one for one in told["data"]["result"] if one["value"][1] != "NaN"]


@pytest.fixture
def prometheus_binary() -> None:
    if shutil.which("prometheus") is None:
        if os.environ.get("CI"):
            pytest.fail("needs prometheus: apt-get install prometheus")
        pytest.skip("needs prometheus: apt-get install prometheus")


@contextlib.contextmanager
def load(target: str) -> Iterator[None]:
    """Clients that ask without a pause; some leave early, some ask for what there is not."""
    stop = threading.Event()

    async def ask_on(place: int) -> None:
        async with Client(target) as client:
            while not stop.is_set():
                with contextlib.suppress(MillstreamError):
                    if place == 0:
                        async with client.generate("x", model="sim", max_tokens=500) as answer:
                            await anext(answer)
                    else:
                        await client.complete("x", model="sim", max_tokens=60)

    async def run() -> None:
        await asyncio.gather(*(ask_on(place) for place in range(6)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_every_panel_shows_something_under_load(prometheus_binary: None, tmp_path: Path) -> None:
    ports = free_ports(3)
    with (
        NatsServer(tmp_path / "nats") as nats,
        Parts(tmp_path, {"MILLSTREAM_NATS": nats.url}) as parts,
        Prometheus(tmp_path, ports) as prometheus,
    ):
        target = parts.gateway("--metrics-port", str(ports[0]))
        flags = ("--engine-arg", "step_ms=5", "--engine-arg", "max_batch=4")
        for name, port in zip(("one", "two"), ports[1:], strict=True):
            parts.worker(name, *flags, "--metrics-port", str(port))
        with load(target):
            eventually(
                lambda: prometheus.query("sum(millstream_worker_running) > 0"), "work is seen", 60.0
            )
            os.kill(parts.pid("two"), signal.SIGKILL)
            empty = queries()

            def all_have_shown() -> bool:  # Not all at once: a failover is seen for ten seconds.
                empty[:] = [one for one in empty if not prometheus.query(one[1])]
                return not empty

            try:
                eventually(all_have_shown, "every panel shows something", 60.0)
            except AssertionError:
                raise AssertionError(f"these show nothing: {empty}") from None
