"""The profile `observability`: its Prometheus finds every gateway and worker by name."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.containers.docker import UP_SECONDS, Compose, prometheus_image
from tests.eventually import eventually


@pytest.fixture
def watched(stack: Compose) -> Iterator[Compose]:
    """A stack with two workers and Prometheus."""
    told = {"ENGINE": "sim", "PROMETHEUS_PORT": "0", "PROMETHEUS_IMAGE": prometheus_image()}
    compose = Compose("millstream-watched", {**stack.environment, **told})
    profile = ("--profile", "observability")
    try:
        compose.run(
            *profile, "up", "-d", "--no-build", "--scale", "worker=2", "gateway", "worker",
            "prometheus", seconds=UP_SECONDS,
        )  # fmt: skip
        yield compose
    finally:
        compose.run(*profile, "down", "-v", "--timeout", "5", seconds=UP_SECONDS)


def test_prometheus_scrapes_every_replica(watched: Compose) -> None:
    url = f"http://{watched.port('prometheus', 9090)}/api/v1/query?query=up"

    def scraped() -> list[tuple[str, str]]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return sorted((one["metric"]["job"], one["value"][1]) for one in found)

    wanted = [("gateway", "1"), ("worker", "1"), ("worker", "1")]
    eventually(lambda: scraped() == wanted, "all are scraped", 60.0)
