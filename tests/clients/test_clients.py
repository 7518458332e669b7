"""Clients that are not ours, unchanged, each in an environment of its own."""

from __future__ import annotations

import pytest

from tests.clients.running import Clients
from tests.eventually import eventually


@pytest.mark.parametrize(
    ("client", "program"),
    [
        ("openai", "openai_sync.py"),
        ("openai", "openai_async.py"),
        ("openai", "openai_embeddings.py"),
        ("openai-node", "openai_node.mjs"),
        ("openai-node", "openai_embeddings.mjs"),
        ("triton", "triton_sync.py"),
        ("triton", "triton_aio.py"),
        ("triton", "triton_functions.py"),
        ("litellm", "litellm_calls.py"),
        ("langchain", "langchain_calls.py"),
        ("vllm", "vllm_bench.py"),
    ],
)
def test_a_client(clients: Clients, client: str, program: str) -> None:
    clients.run(client, program)


@pytest.mark.parametrize(
    ("client", "program"),
    [("openai", "openai_failing.py"), ("openai-node", "openai_failing.mjs")],
)
def test_a_failure_inside_a_stream(clients: Clients, client: str, program: str) -> None:
    name = program.replace(".", "-")
    _, base, pid = clients.gateway(name, "--drain-grace", "0.2")
    eventually(lambda: clients.serves(base), "the second gateway serves", 60)
    clients.run(client, program, BASE_URL=base, GATEWAY_PID=str(pid))
