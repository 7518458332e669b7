"""The promise to a reader: after a worker's death the text is the one it would have been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from millstream import Client
from tests.faults.harness import LOAD_LIMIT, Cluster

TOKENS = 300
KILL_AT = 10
WAYS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.9, "top_p": 0.95, "seed": 7},
    {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
]


async def told(
    client: Client, sampling: dict[str, Any], cluster: Cluster | None
) -> tuple[str, int]:
    """An answer's text and attempts; with a cluster, its worker is killed on the way."""
    answer = client.generate("Once upon a time", max_tokens=TOKENS, ignore_eos=True, **sampling)
    text, tokens = "", 0
    async for delta in answer:
        text += delta.text
        tokens += len(delta.token_ids)
        if cluster is not None and tokens >= KILL_AT:
            assert answer.started is not None
            name = answer.started.worker.rsplit("-", 1)[0]
            cluster.members[name].signal(signal.SIGKILL)
            cluster = None
    assert answer.finished is not None
    assert answer.finished.usage.completion_tokens == TOKENS
    return text, answer.finished.attempts


@pytest.mark.parametrize("sampling", WAYS, ids=["greedy", "seeded", "penalised"])
async def test_the_text_after_a_kill_is_the_undisturbed_one(
    tmp_path: Path, sampling: dict[str, Any]
) -> None:
    flags = ("--engine", "torch")
    async with Cluster(tmp_path, engine=(), worker_flags=flags, patience=LOAD_LIMIT) as cluster:
        client = cluster.client()
        undisturbed, _ = await told(client, sampling, None)
        text, attempts = await told(client, sampling, cluster)
        assert attempts > 1, "the answer was complete before the kill"
        assert text == undisturbed
