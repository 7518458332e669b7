"""Clients that are not ours, unchanged, each in an environment of its own."""

from __future__ import annotations

import pytest

from tests.clients.running import Clients


@pytest.mark.parametrize(
    ("client", "program"),
    [
        ("openai", "openai_sync.py"),
        ("openai", "openai_async.py"),
        ("openai-node", "openai_node.mjs"),
        ("triton", "triton_sync.py"),
        ("triton", "triton_aio.py"),
        ("litellm", "litellm_calls.py"),
        ("langchain", "langchain_calls.py"),
    ],
)
def test_a_client(clients: Clients, client: str, program: str) -> None:
    clients.run(client, program)
