"""Clients of functions: what they refuse, what comes back, what is asked once more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.const import Status

from millstream import Client, reflected
from shared.errors import FunctionError, InvalidRequest, Unavailable, UnknownModel, Unsupported
from shared.signature import Scalar
from tests.unit.fake_functions import (
    COUNT,
    GREET,
    TEXT,
    Call,
    Functions,
    count,
    greet,
    refuse,
    signature,
)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"nowhere": 1}, "nowhere"),
        ({"number": "seven"}, "number"),
        ({"colour": "GREEN"}, "colour"),
        ({"points": [{"x": 1.0}, {"x": "a"}]}, "points[1].x"),
        ({"array": "text"}, "array"),
        ({"picture": 7}, "picture"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    client: Client, functions: Functions, inputs: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.predict("mirror", **inputs)
    assert caught.value.field == field
    assert functions.calls == []


async def test_the_wrong_verb_is_refused(client: Client, functions: Functions) -> None:
    with pytest.raises(InvalidRequest, match="count@1 streams: call stream"):
        await client.predict("count", to=1)
    with pytest.raises(InvalidRequest, match="greet@1 does not stream: call predict"):
        await anext(client.stream("greet"))
    with pytest.raises(InvalidRequest, match="'sim' is a language model: call generate"):
        await client.predict("sim")
    with pytest.raises(UnknownModel, match="'nope' is not served here"):
        await client.predict("nope")
    assert functions.calls == []


async def test_what_a_function_raises_keeps_its_code_and_details(
    client: Client, functions: Functions
) -> None:
    detail = StringValue(value="seven")
    ours = ErrorInfo(reason="FunctionError", domain="millstream")
    functions.serve(
        replace(GREET, name="raising"), refuse(Status.NOT_FOUND, "no such user", [ours, detail])
    )
    with pytest.raises(FunctionError, match="no such user") as caught:
        await client.predict("raising")
    assert caught.value.code == 5
    status = RpcStatus.FromString(caught.value.status)
    assert (status.code, status.message) == (5, "no such user")
    (only,) = status.details
    unpacked = StringValue()
    assert only.Unpack(unpacked)
    assert unpacked == detail
    assert len(functions.calls) == 1


async def test_an_error_in_the_middle_comes_after_the_items(
    client: Client, functions: Functions
) -> None:
    async def play(request: Any, call: Call) -> None:
        await count(request, call)
        raise Unavailable("every worker is gone", retry_after=1.0)

    functions.serve(replace(COUNT, name="breaking"), play)
    items = client.stream("breaking", to=2)
    assert [await anext(items), await anext(items)] == [0, 1]
    with pytest.raises(Unavailable, match="every worker is gone") as caught:
        await anext(items)
    assert caught.value.retry_after == 1.0


async def test_new_types_are_asked_for_once(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflected, "RENEW_AFTER", 0.0)
    assert await client.predict("greet", who="you") == "hello you"
    functions.withdraw(GREET)
    functions.serve(replace(GREET, version="2"), greet)
    assert await client.predict("greet", who="you") == "hello you"
    assert functions.asked == ["greet", "greet"]

    more = signature("count", {"to": Scalar("int64"), "by": TEXT}, Scalar("int64"), streaming=True)
    assert [item async for item in client.stream("count", to=1)] == [0]
    functions.serve(more, count)
    assert [item async for item in client.stream("count", to=2, by="one")] == [0, 1]


async def test_a_refusal_that_is_not_about_types_is_not_repeated(
    client: Client, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(_request: Any, _call: Call) -> None:
        raise Unsupported("not today")

    functions.serve(replace(GREET, name="idle"), play)
    with pytest.raises(Unsupported, match="not today"):
        await client.predict("idle")
    assert functions.asked == ["idle"]  # The types are new.
    monkeypatch.setattr(reflected, "RENEW_AFTER", 0.0)
    with pytest.raises(Unsupported, match="not today"):
        await client.predict("idle")
    assert functions.asked == ["idle", "idle"]
    assert len(functions.calls) == 2
