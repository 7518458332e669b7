"""The simulated engine: the contract, and the hashes of `chain` mode."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import EngineError, MillstreamError
from shared.wire import Message
from tests.engines.contract import EngineContract
from tests.engines.driver import GREEDY, Driver, Subject, changed
from workers.engines.base import ModelLoadError
from workers.engines.sim import SimEngine, SimOptions, chain_broken

CONTEXT = 256


def subject_of(options: SimOptions) -> Subject:
    return Subject(SimEngine("sim", options), lambda ids: "".join(f" {token}" for token in ids))


class TestContract(EngineContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return subject_of(SimOptions(step_ms=0.5, max_batch=16, context_length=CONTEXT))

    async def test_messages_go_through_the_template(self, driver: Driver) -> None:
        answer = await driver.run(messages=(Message("user", "How are you?"),))
        assert bytes(answer.prompt_ids or ()) == b"user: How are you?"


async def test_a_chain_goes_on_where_it_was_left_and_a_splice_shows() -> None:
    driver = Driver(subject_of(SimOptions(mode="chain", context_length=CONTEXT)))
    await driver.engine.start(driver.take, driver.deaths.append)
    one, other = await driver.one("one"), await driver.one("other")
    prompt, cut = tuple(b"one"), 9
    rest = await driver.one("one", delivered=(tuple(one.ids[:cut]),))
    assert chain_broken(prompt, [*one.ids[:cut], *rest.ids]) is None
    assert len(rest.ids) == len(one.ids) - cut
    assert chain_broken(prompt, [*one.ids[:cut], *one.ids[cut + 1 :]]) == cut
    assert chain_broken(prompt, [*one.ids[:cut], *other.ids[cut:]]) == cut
    await driver.engine.close()


async def test_it_hangs_for_a_while_and_dies_as_told() -> None:
    driver = Driver(subject_of(SimOptions(hang_at=3, hang_ms=50, die_at=12, context_length=99)))
    dead: asyncio.Future[MillstreamError] = asyncio.get_running_loop().create_future()
    await driver.engine.start(driver.take, dead.set_result)
    began = asyncio.get_running_loop().time()
    await driver.one(sampling=changed(GREEDY, max_tokens=5))
    assert asyncio.get_running_loop().time() - began >= 0.05
    driver.submit()
    assert isinstance(await dead, EngineError)
    await driver.engine.close()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"speed": "3"}, ["speed", "step_ms"]),
        ({"step_ms": "slow"}, ["step_ms='slow'"]),
        ({"mode": "poem"}, ["mode='poem'", "chain"]),
        ({"max_batch": "0"}, ["at least 1"]),
    ],
)
def test_settings_that_are_none(args: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        SimOptions.parse(args)
    for word in words:
        assert word in str(caught.value)
