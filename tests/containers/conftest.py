from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.containers.docker import BUILD_SECONDS, Compose, problem

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # Everything here cleans up itself.

NUMBERS: dict[str, str] = {}


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine; without one there is nothing to test, which is an error in CI."""
    missing = problem()
    if missing and os.environ.get("CI"):
        pytest.fail(f"{missing}: deploy/container-host.sh sets an engine up on Debian")
    if missing:
        pytest.skip(f"{missing}: see deploy/container-host.sh")


@pytest.fixture(scope="session")
def stack(engine: None) -> Iterator[Compose]:
    """The stack, built from this tree and running with the torch engine and one worker.

    Where deploy/wheels holds no CPU build of torch, the worker's image takes the index's.
    """
    compose = Compose("millstream-test", {"GRPC_PORT": "0", "HTTP_PORT": "0", "TAG": "test"})
    compose.run("build", "--quiet", seconds=BUILD_SECONDS)
    try:
        compose.up()
        yield compose
    finally:
        compose.close()


@pytest.fixture
def torch_stack(stack: Compose) -> Compose:
    """The stack as compose.yaml has it."""
    stack.up(workers=1, ENGINE="torch", ENGINE_ARGS="")
    return stack


@pytest.fixture
def sim_stack(stack: Compose) -> Compose:
    """The same with one worker of the sim engine, whose answers anybody can check."""
    stack.up(workers=1, ENGINE="sim", ENGINE_ARGS="step_ms=5")
    return stack


@pytest.fixture(scope="session")
def numbers() -> dict[str, str]:
    """Measured on the way, printed at the end."""
    return NUMBERS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NUMBERS:
        terminalreporter.section("containers")
        for name, value in NUMBERS.items():
            terminalreporter.write_line(f"{name}: {value}")
