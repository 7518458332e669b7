from __future__ import annotations

from dataclasses import fields

import pytest

from gateway import validate
from gateway.catalog import Catalog
from gateway.door import Door, ulid
from gateway.fleet import Fleet
from gateway.link import Link
from millstream.v1 import inference_pb2 as pb
from shared.bus import Bus, BusOptions
from shared.errors import InvalidRequest, Unavailable, UnknownModel, Unsupported
from shared.wire import Announce, ModelCard, Sampling
from tests.bad_input import CONTEXT, ROWS, VOCABULARY, Bad, request, sampled

CARD = ModelCard(
    "sim", "sim", CONTEXT, VOCABULARY, "none", "f", ("chat", "logprobs", "n"), max_batch=4
)


def announce(name: str, state: str = "ready", card: ModelCard | None = CARD) -> Announce:
    return Announce(f"{name}-1", 1, name, state, card.name if card else "sim", card)


def door(*frames: Announce) -> Door:
    fleet = Fleet()
    for frame in frames:
        fleet.announce(frame, 0.0)
    link = Link(Bus(BusOptions((), "g")), "g", max_queue=1, queue_seconds=1.0)
    return Door("g", link, Catalog(fleet))


@pytest.mark.parametrize("bad", ROWS, ids=lambda bad: bad.name)
async def test_a_bad_request_is_refused_with_its_field(bad: Bad) -> None:
    with pytest.raises(InvalidRequest) as caught:
        door(announce("w")).accept(bad.request)
    assert caught.value.field == bad.field
    assert bad.says in caught.value.message


async def test_zero_is_a_value_and_unset_is_not() -> None:
    accept = door(announce("w")).accept
    assert accept(sampled(temperature=0.0, top_k=0, seed=0, logprobs=0)).sampling.temperature == 0.0
    zeros = accept(sampled(temperature=0.0, top_k=0, seed=0, logprobs=0)).sampling
    assert (zeros.top_k, zeros.seed, zeros.logprobs) == (0, 0, 0)
    unset = accept(request()).sampling
    assert (unset.temperature, unset.top_k, unset.seed, unset.logprobs) == (None,) * 4
    assert (unset.n, unset.repetition_penalty, unset.max_tokens) == (1, 1.0, None)


def test_sampling_has_a_field_for_each_of_the_message() -> None:
    names = [field.name for field in pb.Sampling.DESCRIPTOR.fields]
    assert names == [field.name for field in fields(Sampling)]


async def test_priorities_become_classes() -> None:
    accept = door(announce("w")).accept
    assert accept(request(priority=pb.PRIORITY_INTERACTIVE)).urgency == 1
    assert accept(request()).urgency == 2
    assert accept(request(priority=pb.PRIORITY_BATCH)).urgency == 3


async def test_names_of_requests() -> None:
    accept = door(announce("w")).accept
    assert accept(request(request_id="mine")).request_id == "mine"
    assert accept(request(), request_id="header").request_id == "header"
    made = accept(request()).request_id
    assert validate.REQUEST_ID.fullmatch(made)
    assert accept(request()).request_id != made


async def test_the_empty_model_name_is_the_only_model() -> None:
    assert door(announce("w")).accept(request(model="")).model == "sim"
    other = ModelCard("other", "sim", CONTEXT, VOCABULARY, "none", "f")
    with pytest.raises(InvalidRequest, match="other, sim"):
        door(announce("w"), announce("v", card=other)).accept(request(model=""))


async def test_models_that_cannot_be_called() -> None:
    with pytest.raises(UnknownModel, match=r"'nope'.*sim"):
        door(announce("w")).accept(request(model="nope"))
    with pytest.raises(Unavailable, match="loading") as loading:
        door(announce("w", "loading", None)).accept(request())
    assert loading.value.retry_after
    failed = Announce("w-1", 1, "w", "failed", "sim", None, "no config.json")
    with pytest.raises(Unavailable, match=r"no config\.json"):
        door(failed).accept(request())


async def test_what_an_engine_cannot_do_is_refused() -> None:
    plain = ModelCard("sim", "sim", CONTEXT, VOCABULARY, "none", "f")
    accept = door(announce("w", card=plain)).accept
    with pytest.raises(Unsupported):
        accept(sampled(n=2))
    with pytest.raises(Unsupported):
        accept(sampled(logprobs=1))
    with pytest.raises(InvalidRequest, match="chat template"):
        accept(request(prompt=None, messages=[pb.Message(role="user", content="x")]))


def test_a_ulid_has_26_characters_and_sorts_by_time() -> None:
    one = ulid()
    assert len(one) == 26
    assert set(one) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert one[0] in "01"  # 48 bits of milliseconds last until the year 10889.
