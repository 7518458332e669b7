from __future__ import annotations

from collections import Counter

import pytest

from gateway import catalog as catalog_module
from gateway.catalog import Catalog
from gateway.fleet import Fleet
from shared.errors import InvalidRequest, MillstreamError, Unavailable, UnknownModel
from shared.signature import Signature
from shared.wire import Announce, ModelCard
from tests.unit.typed_bench import announce, card, signature

LLM = ModelCard("tiny", "sim", 64, 100, "none", "f")


class Known:
    """A catalog, its fleet and its clock."""

    def __init__(self, *frames: Announce) -> None:
        self.now = 0.0
        self.fleet = Fleet()
        self.events: Counter[str] = Counter()
        self.catalog = Catalog(self.fleet, lambda: self.now, self.count)
        for frame in frames:
            self.say(frame)

    def count(self, event: str) -> None:
        self.events[event] += 1

    def say(self, frame: Announce) -> None:
        self.fleet.announce(frame, self.now)
        self.catalog.refresh()

    def serve(self, *signatures: Signature) -> Known:
        for one in signatures:
            self.say(announce(card(one)))
        return self

    def left(self) -> float | None:
        return self.catalog.forgets_in

    def default(self, name: str = "echo") -> str:
        return self.catalog.function(name).card.name


@pytest.mark.parametrize(
    ("versions", "default"),
    [
        ((("1", False),), "1"),
        ((("2", False), ("10", False), ("9", False)), "10"),
        ((("2", True), ("10", False)), "2"),
        ((("2", True), ("3", True), ("10", False)), "3"),
    ],
)
def test_a_name_alone_is_the_default_version(
    versions: tuple[tuple[str, bool], ...], default: str
) -> None:
    known = Known().serve(*(signature("echo", v, default=marked) for v, marked in versions))
    assert known.default() == f"echo@{default}"
    for version, _ in versions:
        assert known.default(f"echo@{version}") == f"echo@{version}"


def test_the_default_version_stays_while_it_is_remembered() -> None:
    one, two = signature("echo", "1"), signature("echo", "2")
    known = Known().serve(one, two)
    known.say(announce(card(two), state="gone"))
    with pytest.raises(Unavailable) as caught:
        known.default()
    assert "echo@2" in caught.value.message
    assert caught.value.retry_after is not None
    known.now = catalog_module.REMEMBER + 1
    assert known.default() == "echo@1"


def test_a_function_whose_workers_left_is_unavailable_then_unknown() -> None:
    known = Known().serve(signature())
    assert known.left() is None
    known.say(announce(card(signature()), state="gone"))
    with pytest.raises(Unavailable):
        known.catalog.function("echo@1")
    assert known.left() == catalog_module.REMEMBER
    known.now = catalog_module.REMEMBER + 1
    with pytest.raises(UnknownModel):
        known.catalog.function("echo@1")
    with pytest.raises(UnknownModel):
        known.catalog.function("echo")
    assert known.left() is None


def test_one_whose_calls_may_wait_is_available_without_a_worker() -> None:
    known = Known(announce(card(signature(), "wait")))
    known.say(announce(card(signature(), "wait"), state="gone"))
    assert known.default() == "echo@1"


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_a_worker_that_loads_anew_keeps_what_is_known(state: str) -> None:
    known = Known().serve(signature())
    known.say(announce(card(signature()), state="gone"))
    known.say(Announce("w-2", 2, "w", state, "echo@1", None, "no weights"))
    entry = known.catalog.find("echo")
    assert entry is not None
    assert entry.typed is not None
    with pytest.raises(Unavailable):
        known.catalog.function("echo")


@pytest.mark.parametrize(
    ("state", "says"), [("loading", "'echo@10' is loading"), ("failed", "no weights")]
)
def test_a_name_alone_says_why_it_cannot_be_served_yet(state: str, says: str) -> None:
    known = Known(
        Announce("w-1", 1, "w", state, "echo@9", None, "no weights"),
        Announce("v-1", 2, "v", state, "echo@10", None, "no weights"),
    )
    with pytest.raises(Unavailable, match=says):
        known.catalog.function("echo")
    known.serve(signature())
    assert known.default() == "echo@1"


@pytest.mark.parametrize(
    ("kind", "name", "error", "says"),
    [
        ("card", "echo", InvalidRequest, "Predict"),
        ("card", "echo@1", InvalidRequest, "/millstream.models.v1.Echo/Predict"),
        ("function", "tiny", InvalidRequest, "Generate"),
        ("function", "", InvalidRequest, "empty"),
        ("function", "echo@2", UnknownModel, "echo@2"),
        ("function", "other", UnknownModel, "other"),
    ],
)
def test_the_wrong_call_names_the_right_one(
    kind: str, name: str, error: type[MillstreamError], says: str
) -> None:
    known = Known(announce(LLM)).serve(signature())
    with pytest.raises(error) as caught:
        getattr(known.catalog, kind)(name)
    assert type(caught.value) is error
    assert caught.value.field == "model"
    assert says in caught.value.message


def test_the_empty_name_is_the_only_language_model() -> None:
    known = Known(announce(LLM)).serve(signature())
    assert known.catalog.card("").name == "tiny"


@pytest.mark.parametrize("data", [b"\xff", b"{}", b"[1]", b"{" * 100_000])
def test_a_signature_that_cannot_be_read_hurts_nobody(data: bytes) -> None:
    known = Known().serve(signature("good"))
    for _ in range(3):
        known.say(announce(card(signature("bad"), data=data)))
    assert known.events["signature_refused"] == 1
    assert known.default("good") == "good@1"
    with pytest.raises(Unavailable):
        known.catalog.function("bad@1")
    with pytest.raises(InvalidRequest):
        known.catalog.card("bad@1")


def test_another_models_signature_is_refused() -> None:
    bad = card(signature("bad"), data=card(signature("good")).signature)
    known = Known(announce(bad))
    assert known.events["signature_refused"] == 1
    assert known.catalog.find("good") is None


def test_messages_are_built_once_a_signature() -> None:
    known = Known().serve(signature())
    first = known.catalog.function("echo").typed
    known.serve(signature())
    assert known.catalog.function("echo").typed is first
    known.serve(signature(summary="Says it again."))
    assert known.catalog.function("echo").typed is not first
