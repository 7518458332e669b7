"""Several gateways behind nginx: compose.gateways.yaml."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from millstream import Client, SyncClient
from millstream.answers import Completion
from shared.errors import Unavailable
from tests.containers.docker import UP_SECONDS, Compose, docker, nginx_image
from tests.containers.load import Load, until

GRPC_PORT = 50051
ESTABLISHED = "01"


@pytest.fixture(scope="module")
def gateways(stack: Compose) -> Iterator[Compose]:
    """Two gateways and a worker of the sim engine."""
    environment = {**stack.environment, "ENGINE": "sim", "ENGINE_ARGS": "step_ms=5"}
    environment["NGINX_IMAGE"] = nginx_image()
    compose = Compose("millstream-gateways", environment, "compose.gateways.yaml")
    try:
        scale(compose, 2)
        yield compose
    finally:
        compose.close()


def scale(compose: Compose, count: int) -> None:
    compose.run(
        "up", "-d", "--wait", "--no-build", "--scale", f"gateway={count}", seconds=UP_SECONDS
    )


def connections(container: str) -> int:
    """Open connections to a gateway's gRPC port."""
    table = docker("exec", container, "cat", "/proc/net/tcp").splitlines()[1:]
    rows = [line.split() for line in table]
    port = f":{GRPC_PORT:04X}"
    return sum(row[1].endswith(port) and row[3] == ESTABLISHED for row in rows)


def test_calls_spread_and_a_stopping_gateway_finishes_its_own(gateways: Compose) -> None:
    target = gateways.port("balancer", GRPC_PORT)
    containers = gateways.containers("gateway")
    with Load(target, clients=12) as load:
        until(load, lambda: all(map(connections, containers)), "both are called")
        scale(gateways, 1)
        scale(gateways, 2)
        newer = set(gateways.containers("gateway")) - set(containers)
        until(load, lambda: all(map(connections, newer)), "the new one is called")
    assert not load.tally.problems, load.tally.problems[:5]


async def test_a_killed_gateway_is_unavailable_and_the_next_try_reaches_another(
    gateways: Compose,
) -> None:
    scale(gateways, 2)
    target = gateways.port("balancer", GRPC_PORT)
    victim = gateways.containers("gateway")[0]
    async with Client(target) as client:
        running: list[asyncio.Task[Completion]] = []
        async with asyncio.timeout(30):
            while await asyncio.to_thread(connections, victim) < 2:  # One is its health check's.
                asked = client.complete("x", model="sim", max_tokens=2000)
                running.append(asyncio.create_task(asked))
        await asyncio.to_thread(docker, "kill", victim)
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert any(isinstance(one, Unavailable) for one in outcomes)
        failed = [one for one in outcomes if isinstance(one, BaseException)]
        assert all(isinstance(one, Unavailable) for one in failed), failed
        answer = await client.complete("x", model="sim", max_tokens=3, deadline=20.0)
        assert answer.text == " 0 1 2"
    scale(gateways, 2)


def test_http_goes_through_too(gateways: Compose) -> None:
    import urllib.request

    with urllib.request.urlopen(f"http://{gateways.port('balancer', 8080)}/health/ready") as told:
        assert told.status == 200


def test_where_no_gateway_is_the_client_is_told_so(gateways: Compose) -> None:
    gateways.run("stop", "gateway", seconds=90.0)
    with (
        SyncClient(gateways.port("balancer", GRPC_PORT)) as client,
        pytest.raises(Unavailable, match="no gateway answers"),
    ):
        client.complete("x", model="sim", deadline=10.0)
