from __future__ import annotations

from typing import Any

import pytest
from multidict import MultiDict

from gateway.access import Limits
from gateway.typed.options import MOST_BYTES, MOST_ENTRIES, context_metadata, options_of, urgency
from shared.errors import InvalidRequest, UnknownModel, Unsupported
from shared.wire import ModelCard
from tests.unit.typed_bench import RICH, Bench, announce, card, signature

V1, ALIAS = "millstream.models.v1.Echo", "millstream.models.Echo"


def paths(bench: Bench) -> set[str]:
    return {p for p in bench.server._state.methods if p.startswith("/millstream.models.")}


def listed(bench: Bench) -> set[str]:
    return {s for s in bench.reflection._services if s.startswith("millstream.models.")}


async def test_a_function_is_served_listed_and_healthy_until_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.announce(signature())
    assert paths(bench) == {f"/{V1}/Predict", f"/{ALIAS}/Predict"}
    assert listed(bench) == {V1, ALIAS}
    assert bench.reflection._file_of[V1] == "millstream/models/v1/echo.proto"
    assert bench.health._serving[V1]
    assert bench.health._serving[ALIAS]
    assert bench.typed.service_of("echo@1") == V1
    bench.gone(signature())
    assert listed(bench) == {V1, ALIAS}
    assert not bench.health._serving[V1]
    monkeypatch.setattr("gateway.catalog.REMEMBER", -1.0)
    bench.update()
    assert paths(bench) == listed(bench) == set()
    assert V1 not in bench.health._serving
    assert V1 not in bench.reflection._file_of
    assert bench.typed.service_of("echo@1") == ""


async def test_versions_side_by_side_and_the_alias_follows_the_default() -> None:
    bench = Bench()
    bench.announce(signature(version="1"), signature(version="2", streaming=True))
    assert paths(bench) == {
        f"/{V1}/Predict",
        "/millstream.models.v2.Echo/PredictStream",
        f"/{ALIAS}/PredictStream",
    }
    bench.announce(signature(version="1", default=True))
    assert f"/{ALIAS}/Predict" in paths(bench)
    assert f"/{ALIAS}/PredictStream" not in paths(bench)


async def test_a_changed_signature_rebuilds_the_service() -> None:
    bench = Bench()
    bench.announce(signature())
    before = bench.server._state.methods[f"/{V1}/Predict"]
    bench.announce(signature())
    assert bench.server._state.methods[f"/{V1}/Predict"] is before
    bench.announce(signature("echo", "1", *RICH.inputs.fields, streaming=True))
    assert paths(bench) == {f"/{V1}/PredictStream", f"/{ALIAS}/PredictStream"}
    assert f"{V1}Request.vector" in bench.reflection._file_of


async def test_of_two_names_for_one_service_the_first_known_has_it() -> None:
    bench = Bench()
    bench.announce(signature("my_model"))
    bench.announce(signature("my-model"))
    service = "millstream.models.v1.MyModel"
    assert bench.typed.service_of("my_model@1") == service
    assert bench.typed.service_of("my-model@1") == ""
    assert bench.calls.function("my-model@1").card.name == "my-model@1"
    both = Bench()
    for one in (signature("my_model"), signature("my-model")):
        both.router.fleet.announce(announce(card(one)), 0.0)
    both.update()
    assert both.typed.service_of("my-model@1") == service


async def test_a_bad_signature_leaves_the_others_served() -> None:
    bench = Bench()
    bench.router.on_announce(announce(card(signature("bad"), data=b"\xff")))
    bench.announce(signature())
    assert listed(bench) == {V1, ALIAS}
    assert bench.router.events["signature_refused"] == 1


async def test_language_models_have_no_service() -> None:
    bench = Bench()
    bench.router.on_announce(announce(ModelCard("tiny", "sim", 64, 100, "none", "f")))
    assert listed(bench) == set()


@pytest.mark.parametrize(
    ("path", "error"),
    [(f"/{V1}/Other", Unsupported), ("/millstream.models.v9.Echo/Predict", UnknownModel)],
)
async def test_a_path_that_is_not_served_says_why(path: str, error: type[Exception]) -> None:
    bench = Bench()
    bench.announce(signature())
    handler = bench.server._state.unknown(path)
    assert handler is not None
    with pytest.raises(error):
        await handler.func(object())
    assert bench.server._state.unknown("/other.Service/Method") is None


class _Call:
    """A stream's metadata and nothing else."""

    deadline = None

    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self.metadata = MultiDict(metadata)


def test_metadata_says_how_a_call_is_run() -> None:
    call: Any = _Call(
        ("x-request-id", "mine"), ("traceparent", "00-a-b-01"), ("x-priority", "batch"),
        ("x-label-team", "search"), ("millstream-tenant", "acme"), ("authorization", "Bearer ms_x"),
        ("color", "red"), ("blob-bin", b"\x00"), ("color", "blue"),
    )  # fmt: skip
    options = options_of(call)
    assert (options.request_id, options.traceparent, options.tenant) == (
        "mine", "00-a-b-01", "acme",
    )  # fmt: skip
    assert options.urgency == 3
    assert options.labels == (("team", "search"),)
    names = [name for name, _ in options.metadata]
    assert "authorization" not in names
    assert "millstream-tenant" not in names
    assert "blob-bin" not in names
    assert [value for name, value in options.metadata if name == "color"] == ["red", "blue"]


@pytest.mark.parametrize(("name", "value"), [("", 2), ("interactive", 1), ("STANDARD", 2)])
def test_priorities_by_name(name: str, value: int) -> None:
    assert urgency(name) == value


@pytest.mark.parametrize("name", ["resume", "urgent", "0"])
def test_other_priorities_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        urgency(name)
    assert caught.value.field == "x-priority"


@pytest.mark.parametrize(
    "entries", [[("a", "b")] * (MOST_ENTRIES + 1), [("a", "b" * MOST_BYTES)]], ids=["many", "long"]
)
def test_metadata_is_bounded(entries: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest):
        context_metadata(entries)


@pytest.mark.parametrize(
    ("models", "allowed"),
    [((), True), (("echo",), True), (("echo@1",), True), (("echo@2",), False)],
)
def test_a_tenant_may_be_allowed_a_function_or_a_version(
    models: tuple[str, ...], allowed: bool
) -> None:
    assert Limits(models=models).allows("echo@1") is allowed
