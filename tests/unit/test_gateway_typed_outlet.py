from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.outlet import Flusher
from gateway.ports import Summary
from gateway.typed.awaited import Awaited
from gateway.typed.outlet import MOST_UNTAKEN, SLICE, CallOutlet
from shared import wire
from shared.errors import EngineError, InternalError, MillstreamError

END = Summary(("stop",), 0, 0, 0, 0.0, 0.0, 0.0, 1)


class Client:
    """A writer whose client reads when it is let."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()
        self.writes: list[list[bytes]] = []
        self.finished = False

    def finish(self) -> bool:
        self.finished = self.reads.is_set()
        return self.finished

    def write(self, messages: Sequence[bytes]) -> bool:
        if not self.reads.is_set():
            return False
        self.writes.append(list(messages))
        return True

    async def send(self, messages: Sequence[bytes]) -> None:
        await self.reads.wait()
        self.writes.append(list(messages))

    @property
    def got(self) -> list[bytes]:
        return [message for write in self.writes for message in write]


class Rig:
    def __init__(self, *, reads: bool = True, upper: bool = False) -> None:
        self.client = Client(reads=reads)
        self.failures: list[MillstreamError] = []
        self.taken: list[int] = []
        self.outlet = CallOutlet(
            self.client, Flusher(), self.fail, (lambda _, item: item.upper()) if upper else None
        )
        self.outlet.taken = self.taken.append

    def fail(self, error: MillstreamError) -> None:
        self.failures.append(error)
        self.outlet.failed(error)


async def test_items_of_one_turn_are_one_write_and_taken_at_once() -> None:
    rig = Rig()
    rig.outlet.items(0, [b"a", b"b"], 0)
    rig.outlet.items(2, [b"c"], 0)
    rig.outlet.finished(END)
    await rig.outlet.run()
    assert rig.client.writes == [[b"a", b"b", b"c"]]
    assert rig.taken == [3]


async def test_an_answer_that_went_well_ends_with_its_last_item() -> None:
    rig = Rig()
    rig.outlet.items(0, [b"a"], 0)
    rig.outlet.finished(END)
    await asyncio.sleep(0)
    assert rig.client.finished, "no task had to run for it"


@pytest.mark.parametrize("reads", [True, False])
async def test_no_other_answer_ends_well(reads: bool) -> None:
    rig = Rig(reads=reads)
    rig.outlet.items(0, [b"a"], 0)
    if reads:
        rig.outlet.failed(EngineError("broken"))
    else:
        rig.outlet.finished(END)
        rig.outlet.abandon()
    await asyncio.sleep(0)
    assert not rig.client.finished


async def test_what_failed_does_not_end_well_after_all() -> None:
    rig = Rig()
    rig.outlet.failed(EngineError("broken"))
    rig.outlet.finished(END)
    await asyncio.sleep(0)
    assert not rig.client.finished


async def test_an_outlet_that_breaks_holds_up_no_other() -> None:
    faults: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    flusher, client = Flusher(), Client(reads=True)

    class Broken(Client):
        def write(self, messages: Sequence[bytes]) -> bool:
            raise ValueError("broken")

    outlets = [CallOutlet(one, flusher, lambda _: None) for one in (Broken(reads=True), client)]
    for outlet in outlets:
        outlet.items(0, [b"a"], 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.got == [b"a"]
    assert len(faults) == 1


async def test_items_are_converted_before_they_wait() -> None:
    rig = Rig(upper=True)
    rig.outlet.items(0, [b"a"], 0)
    rig.outlet.finished(END)
    await rig.outlet.run()
    assert rig.client.got == [b"A"]


async def test_nothing_is_taken_before_the_client_reads() -> None:
    rig = Rig(reads=False)
    running = asyncio.create_task(rig.outlet.run())
    items = [b"x" * (SLICE // 2)] * 5
    rig.outlet.items(0, items, 0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert rig.taken == []
    rig.client.reads.set()
    rig.outlet.finished(END)
    await running
    assert rig.client.got == items
    assert rig.taken == [2, 4, 5]


async def test_one_item_may_be_larger_than_everything() -> None:
    rig = Rig(reads=False)
    rig.outlet.items(0, [b"x" * (8 * MOST_UNTAKEN)], 0)
    assert rig.failures == []


async def test_a_worker_that_ignores_its_window_is_cut_off() -> None:
    rig = Rig(reads=False)
    for index in range(6):
        rig.outlet.items(index, [b"x" * wire.WINDOW], 0)
    assert [type(error) for error in rig.failures] == [InternalError]
    assert rig.outlet._size < MOST_UNTAKEN + 2 * wire.WINDOW


async def test_what_came_before_an_error_is_written_first() -> None:
    rig = Rig()
    rig.outlet.items(0, [b"a"], 0)
    rig.outlet.failed(EngineError("broken"))
    with pytest.raises(EngineError):
        await rig.outlet.run()
    assert rig.client.got == [b"a"]


async def test_a_result_is_given_once_the_call_has_ended() -> None:
    outlet = Awaited()
    waiting = asyncio.create_task(outlet.only())
    await asyncio.sleep(0)
    outlet.items(0, [b"a"], 0)
    await asyncio.sleep(0)
    assert not waiting.done()
    outlet.finished(END)
    assert await waiting == b"a"


@pytest.mark.parametrize("items", [[], [b"a", b"b"]])
async def test_no_result_or_several_are_the_workers_fault(items: list[bytes]) -> None:
    outlet = Awaited()
    outlet.items(0, items, 0)
    outlet.finished(END)
    with pytest.raises(InternalError):
        await outlet.only()


async def test_a_generations_tokens_are_a_mistake() -> None:
    with pytest.raises(TypeError):
        Awaited().delta(0, [1], "a", 0, 0, None)


async def test_slices_are_taken_when_the_next_are_asked_for() -> None:
    outlet = Awaited()
    told: list[int] = []
    outlet.taken = told.append
    outlet.items(0, [b"a", b"b", b"x" * SLICE, b"c"], 0)
    assert await outlet.some() == [b"a", b"b"]
    assert told == []
    assert await outlet.some() == [b"x" * SLICE]
    assert await outlet.some() == [b"c"]
    assert told == [2, 3]
    waiting = asyncio.create_task(outlet.some())
    await asyncio.sleep(0)
    assert told == [2, 3, 4]
    outlet.poke()
    assert await waiting == []
    outlet.failed(InternalError("broken"))
    with pytest.raises(InternalError):
        await outlet.some()


async def test_a_worker_that_ignores_the_window_of_one_who_takes_slices_is_stopped() -> None:
    outlet = Awaited()
    outlet.items(0, [b"x" * (MOST_UNTAKEN + 1)], 0)
    outlet.items(1, [b"y"], 0)
    assert await outlet.some() == [b"x" * (MOST_UNTAKEN + 1)]
    with pytest.raises(InternalError):
        await outlet.some()
