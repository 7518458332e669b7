"""What the engine uses of vLLM's inside, and how it hears a step."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.engine.core_client import AsyncMPClient, DPLBAsyncMPClient
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.outputs import LogprobsLists

from tests.engines.driver import GREEDY, changed
from tests.vllm.shared import Relay, VllmDriver
from workers.engines.base import Output
from workers.engines.pieces import Pieces
from workers.engines.text import TextStream
from workers.engines.vllm.answers import FINISHES, Lane

LONG = 150
"""Tokens of an answer that still runs when a test that heard it begin comes to its turn."""

SAID = {"request_id", "new_token_ids", "new_logprobs", "finish_reason", "prefill_stats"}


@pytest.mark.parametrize("client", [AsyncMPClient, DPLBAsyncMPClient])
@pytest.mark.parametrize(
    ("method", "takes"),
    [
        ("get_output_async", ["self"]),
        ("add_request_async", ["self", "request"]),
        ("abort_requests_async", ["self", "request_ids"]),
    ],
)
def test_the_core_is_asked_in_these_ways(client: type, method: str, takes: list[str]) -> None:
    function = getattr(client, method)
    assert inspect.iscoroutinefunction(function)
    assert list(inspect.signature(function).parameters) == takes


def test_a_request_is_made_in_this_way() -> None:
    takes = list(inspect.signature(InputProcessor.process_inputs).parameters)
    assert takes[1:5] == ["request_id", "prompt", "params", "supported_tasks"]
    assert {"lora_request", "priority"} <= set(takes)
    assert list(inspect.signature(InputProcessor.assign_request_id).parameters) == ["request"]


def test_a_step_says_these_things() -> None:
    assert set(EngineCoreOutput.__struct_fields__) >= SAID
    assert set(EngineCoreOutputs.__struct_fields__) >= {"outputs", "scheduler_stats"}
    assert LogprobsLists._fields[:2] == ("logprob_token_ids", "logprobs")
    assert {str(reason) for reason in FinishReason} == {*FINISHES, "abort", "error"}
    assert EngineCoreOutput("a", [1], finish_reason=FinishReason.LENGTH).finished
    assert not EngineCoreOutput("a", [1]).finished


@pytest.mark.asyncio(loop_scope="session")
async def test_nobody_else_listens_to_the_core(driver: VllmDriver, relay: Relay) -> None:
    await driver.one()
    assert relay.engine._llm.output_handler is None
    assert relay.engine._llm.get_num_unfinished_requests() == 0
    assert not relay.engine._asked


@pytest.mark.asyncio(loop_scope="session")
async def test_what_a_step_says_comes_at_once(driver: VllmDriver, relay: Relay) -> None:
    sizes: list[int] = []

    def count(outputs: Sequence[Output]) -> None:
        sizes.append(len(outputs))
        driver.take(outputs)

    relay.sink = count
    jobs = [driver.submit(sampling=changed(GREEDY, max_tokens=LONG)) for _ in range(16)]
    for job in jobs:
        await driver.end(job)
    assert max(sizes) == len(jobs)
    assert sum(sizes) <= LONG * len(jobs)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_listener_that_fails_once_hears_the_next_step(
    driver: VllmDriver, relay: Relay
) -> None:
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: heard.append(context))

    def fail(_outputs: Sequence[Output]) -> None:
        relay.sink = driver.take
        raise RuntimeError("once")

    job = driver.submit(sampling=changed(GREEDY, max_tokens=LONG))
    await driver.answers[job].begun.wait()
    relay.sink = fail
    try:
        await driver.end(job)
    finally:
        loop.set_exception_handler(None)
    assert [str(context["exception"]) for context in heard] == ["once"]
    assert not relay.deaths


def test_tokens_are_told_together_where_vllm_is_told_to() -> None:
    pieces = Pieces([bytes([97 + place]) for place in range(26)])
    lane = Lane(1, 0, TextStream(pieces), pieces, frozenset(), 9, None, interval=3)
    texts = []
    for token in range(9):
        said = SimpleNamespace(new_token_ids=[token], new_logprobs=None, finish_reason=None)
        output = lane.take(said)
        texts.append(output.text if output else "")
    assert texts == ["a", "", "", "bcd", "", "", "efg", "", "hi"]


@pytest.mark.asyncio(loop_scope="session")
async def test_what_cannot_be_read_costs_one_job_and_no_other(
    driver: VllmDriver, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = changed(GREEDY, max_tokens=LONG, ignore_eos=True)
    jobs = [driver.submit(sampling=sampling) for _ in range(3)]
    for job in jobs:
        await driver.answers[job].begun.wait()
    odd = relay.engine._open[jobs[1]].lanes[0].stream
    push = TextStream.push

    def broken(self: TextStream, *arguments: Any, **options: Any) -> bool:
        if self is odd:
            raise IndexError("odd token")
        return push(self, *arguments, **options)

    monkeypatch.setattr(TextStream, "push", broken)
    for job in jobs:
        await driver.end(job)
    assert "odd token" in str(driver.answers[jobs[1]].error)
    assert [driver.answers[job].error for job in (jobs[0], jobs[2])] == [None, None]
    assert [len(driver.answers[job].choices[0].ids) for job in (jobs[0], jobs[2])] == [LONG] * 2
