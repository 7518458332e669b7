"""What Prometheus, Grafana and the OTLP collector are given: checked without their images.

Prometheus itself runs in tests/containers; Grafana and the collector need their images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import ROOT

yaml = pytest.importorskip("yaml")

DEPLOY = ROOT / "deploy"
KNOWN = {
    "receivers": {"otlp"},
    "processors": {"batch", "memory_limiter"},
    "exporters": {"debug", "otlp", "otlphttp"},
}
"""Components that the collector's core distribution has."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """What compose makes of compose.yaml with all profiles."""
    if shutil.which("docker") is None:
        pytest.skip("needs docker compose")
    told = subprocess.run(
        ["docker", "compose", "--profile", "observability", "config", "--format", "json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")},
    )
    assert told.returncode == 0, told.stderr
    return dict(json.loads(told.stdout)["services"])


def on_host(service: dict[str, Any], path: str) -> Path:
    """The file here that a container sees at a path."""
    for mount in service["volumes"]:
        if mount["type"] == "bind" and path.startswith(mount["target"] + "/"):
            return Path(mount["source"]) / path.removeprefix(mount["target"] + "/")
    raise AssertionError(f"nothing is mounted at {path}")


def test_the_collector_is_given_a_pipeline_that_fits_together(services: dict[str, Any]) -> None:
    flag, path = services["otel"]["command"]
    assert flag == "--config"
    config = read(on_host(services["otel"], path))
    for kind, known in KNOWN.items():
        assert {name.split("/")[0] for name in config[kind]} <= known
    (pipeline,) = config["service"]["pipelines"].values()
    for kind in KNOWN:
        assert set(pipeline[kind]) == set(config[kind])
    assert pipeline["processors"][0] == "memory_limiter"  # What it refuses must cost nothing.
    assert pipeline["processors"][-1] == "batch"
    limit = config["processors"]["memory_limiter"]["limit_mib"]
    assert limit * 2**20 < int(services["otel"]["mem_limit"])
    port = config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rsplit(":", 1)[1]
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://otel:{port}" in (ROOT / "compose.yaml").read_text()


def test_prometheus_scrapes_the_ports_that_are_served(services: dict[str, Any]) -> None:
    (flag,) = [one for one in services["prometheus"]["command"] if "config.file" in one]
    file = on_host(services["prometheus"], flag.split("=")[1])
    ports = {
        job["job_name"]: job["dns_sd_configs"][0]["port"] for job in read(file)["scrape_configs"]
    }
    assert ports == {
        name: int(services[name]["environment"][f"MILLSTREAM_{name.upper()}_METRICS_PORT"])
        for name in ("gateway", "worker")
    }
    if shutil.which("promtool") is not None:
        told = subprocess.run(
            ["promtool", "check", "config", str(file)], capture_output=True, text=True
        )
        assert told.returncode == 0, told.stdout + told.stderr


def test_grafana_finds_its_source_and_its_dashboards(services: dict[str, Any]) -> None:
    grafana = services["grafana"]
    provisioning = on_host(grafana, "/etc/grafana/provisioning/x").parent
    (source,) = read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    published = services["prometheus"]["ports"][0]["target"]
    assert source["url"] == f"http://prometheus:{published}"
    (provider,) = read(provisioning / "dashboards" / "millstream.yaml")["providers"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"] + "/")
    board = json.loads(on_host(grafana, home).read_text())
    used = {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel}
    assert used == {source["uid"]}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_a_gpu_worker_gets_gpus_and_its_cache() -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs docker compose")
    files = ("-f", "compose.yaml", "-f", "compose.gpu.yaml")
    told = subprocess.run(
        ["docker", "compose", *files, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "MODEL": "org/model"},
    )
    worker = json.loads(told.stdout)["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    mounted = {mount["target"] for mount in worker["volumes"]}
    made = (DEPLOY / "worker-vllm.Dockerfile").read_text()
    assert mounted == {"/cache", "/run/gpus"}
    assert "10001 /cache /run/gpus" in made
    assert "ports" not in worker  # Fixed ports would stand in the way of --scale.
    assert worker["environment"]["MILLSTREAM_WORKER_MODEL"] == "org/model"
