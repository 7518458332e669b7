"""What is in the images."""

from __future__ import annotations

import pytest

from tests.containers.docker import PYTHON_IMAGE, Compose, docker, image_megabytes

GATEWAY = "millstream-gateway:test"
WORKER = "millstream-worker:test"


def in_image(image: str, *command: str) -> str:
    program, *arguments = command
    return docker("run", "--rm", "--network=none", "--entrypoint", program, image, *arguments)


def test_the_gateway_is_small(stack: Compose, numbers: dict[str, str]) -> None:
    base, gateway, worker = map(image_megabytes, (PYTHON_IMAGE, GATEWAY, WORKER))
    numbers["gateway image over its base"] = f"{gateway - base:.0f} MB"
    numbers["worker image over its base"] = f"{worker - base:.0f} MB"
    assert gateway - base < 150


def test_the_gateway_has_no_engine(stack: Compose) -> None:
    code = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])"
    found = in_image(GATEWAY, "python", "-c", code % (["torch", "transformers", "workers.host"],))
    assert found == "[]"


@pytest.mark.parametrize("image", [GATEWAY, WORKER])
def test_nothing_runs_as_root(stack: Compose, image: str) -> None:
    assert in_image(image, "id", "-u") == "10001"


@pytest.mark.parametrize("service", ["gateway", "worker", "nats"])
def test_containers_can_write_nowhere_but_where_they_must(
    torch_stack: Compose, service: str
) -> None:
    (container,) = torch_stack.containers(service)
    told = torch_stack.inspect(container)["HostConfig"]
    assert told["ReadonlyRootfs"]
    assert told["CapDrop"] == ["ALL"]
    assert told["SecurityOpt"] == ["no-new-privileges:true"]
    assert told["Memory"] > 0
    assert told["PidsLimit"] > 0
