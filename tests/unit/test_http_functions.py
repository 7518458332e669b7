"""What a request for a function says, and what its answer looks like."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import HTTPConnection

from gateway.http import errors
from gateway.http.functions import formats, media
from gateway.http.functions.asks import from_members, from_query
from gateway.http.functions.formats import Events, Lines, Packed
from gateway.kserve import conversation, packing
from gateway.kserve import inference_pb2 as kserve
from shared.errors import FunctionError, InternalError, InvalidRequest, Overloaded
from shared.signature import Field, ListType, Record, Scalar, Signature, TensorType, Type
from shared.values import Media, Tensor


def connection(**headers: str) -> HTTPConnection:
    state = SimpleNamespace(request_id="generated", tenant="me")
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return cast(HTTPConnection, SimpleNamespace(headers=given, state=state))


def signature(*kinds: Type) -> Signature:
    fields = tuple(Field(f"p{place}", place, kind) for place, kind in enumerate(kinds, 1))
    return Signature("f", "1", Record("Inputs", fields), Scalar("string"))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("", []),
        ("*/*", []),
        ("a/b;q=0.2, c/d , e/*;q=0.9, f/g;q=0", ["c/d", "a/b"]),
        ("A/B; q=x, text/event-stream", ["text/event-stream"]),
    ],
)
def test_what_is_accepted(header: str, names: list[str]) -> None:
    assert formats.accepted(header) == names


@pytest.mark.parametrize(
    ("accept", "packed", "kind"),
    [
        ([], False, Events),
        ([], True, Packed),
        (["application/json"], False, Events),
        (["text/event-stream"], True, Events),
        (["application/jsonl"], True, Lines),
        (["text/html", "application/x-msgpack", "text/event-stream"], False, Packed),
    ],
)
def test_the_format_of_a_stream(accept: list[str], packed: bool, kind: type) -> None:
    assert type(formats.stream_of(accept, packed=packed)) is kind


def test_a_failure_that_may_pass_lets_an_event_source_come_back() -> None:
    assert b"id: end" not in Events().failed(Overloaded("full"))
    own = Events().failed(FunctionError("gone", code=5))
    assert own.startswith(b"id: end\nevent: failed\n")
    assert json.loads(own.split(b"data: ")[1])["error"]["code"] == "not_found"


def test_an_error_renamed_keeps_what_the_function_said() -> None:
    error = FunctionError("a.b is odd", code=5, status=b"x", field="a.b", retry_after=2.0)
    for named in (errors.renamed(error, {"a.b": "c"}), conversation.renamed(error)):
        assert isinstance(named, FunctionError)
        assert (named.code, named.status, named.retry_after) == (5, b"x", 2.0)
        assert (errors.status(named), errors.code(named)) == (404, "not_found")


def test_a_body_goes_before_the_headers() -> None:
    told = connection(x_priority="batch", x_label_a="1", x_own="v", cookie="c", accept="*/*")
    ask = from_members(told, {"priority": "interactive", "labels": {"b": "2"}}, packed=False)
    assert (ask.options.urgency, ask.options.request_id) == (1, "generated")
    assert ask.options.labels == (("a", "1"), ("b", "2"))
    assert ("x-own", "v") in ask.options.metadata
    assert not {"cookie", "accept"} & {name for name, _ in ask.options.metadata}


@pytest.mark.parametrize("timeout", [True, "1", 0, -1, float("nan")])
def test_a_timeout_is_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_members(connection(), {"timeout": timeout}, packed=False)
    assert caught.value.field == "timeout"


@pytest.mark.parametrize("timeout", [1e300, float("inf"), 10**400])
def test_a_timeout_without_end_is_a_long_one(timeout: Any) -> None:
    ask = from_members(connection(), {"timeout": timeout}, packed=False)
    assert ask.options.seconds == 1e9


def test_a_query_is_read_by_type() -> None:
    function = signature(
        Scalar("string"), Scalar("int64"), Scalar("double"), Scalar("bool"), Scalar("json"),
        ListType(Scalar("int64")), TensorType("float32", ("n",)), Scalar("bytes"),
    )  # fmt: skip
    texts = ["1", "2", "3", "true", "[1]", "4", '{"dtype": "float32"}', "YQ=="]
    pairs = [(f"p{place}", text) for place, text in enumerate(texts, 1)] + [("p6", "5")]
    assert from_query(connection(), function, pairs).inputs == {
        "p1": "1", "p2": 2, "p3": 3.0, "p4": True, "p5": [1], "p6": [4, 5],
        "p7": {"dtype": "float32"}, "p8": "YQ==",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["text/html", "image/png\r\nx: y", "image/", "image/a b"])
def test_a_media_type_fits_into_a_header(kind: str) -> None:
    with pytest.raises(InternalError):
        media.checked("image", Media(kind, b""))


def test_a_track_keeps_its_type() -> None:
    track = media.Track("audio", [])
    assert track.item(0, Media("audio/mpeg", b"a")) == b"a"
    assert track.content_type == "audio/mpeg"
    with pytest.raises(InternalError):
        track.item(1, Media("audio/ogg", b"b"))


@pytest.mark.parametrize(
    ("kind", "data", "heard"),
    [
        ("audio/L16;rate=8000", b"\1\2", b"\2\1"),
        ("audio/L16; rate=8000; channels=2", b"\1\2\3\4", b"\2\1\4\3"),
        ("audio/pcm;rate=8000", b"\1\2", b"\1\2"),
    ],
)
def test_samples_become_wav(kind: str, data: bytes, heard: bytes) -> None:
    made = media.whole("audio", Media(kind, data), [])
    assert (made.type, made.data[44:]) == ("audio/wav", heard)
    assert struct.unpack_from("<I", made.data, 4)[0] == len(made.data) - 8


def test_samples_without_a_rate_stay_as_they_are() -> None:
    assert media.whole("audio", Media("audio/L16", b"\1\2"), []).data == b"\1\2"
    with pytest.raises(InternalError):
        media.whole("audio", Media("audio/L16;rate=1", b"\1"), [])


@pytest.mark.parametrize(
    ("kind", "value", "datatype", "shape", "raw"),
    [
        (Scalar("string"), "ä", "BYTES", [1], b"\2\0\0\0\xc3\xa4"),
        (Scalar("bool"), True, "BOOL", [1], b"\1"),
        (Scalar("int64"), -1, "INT64", [1], b"\xff" * 8),
        (Scalar("json"), "a", "BYTES", [1], b'\3\0\0\0"a"'),
        (Scalar("json"), None, "BYTES", [1], b"\4\0\0\0null"),
        (ListType(Scalar("string")), [], "BYTES", [0], b""),
        (ListType(Scalar("bool")), [True, False], "BOOL", [2], b"\1\0"),
        (ListType(ListType(Scalar("int64"))), [[1]], "BYTES", [1], b"\5\0\0\0[[1]]"),
        (TensorType(), Tensor("bfloat16", (1, 1), b"ab"), "BF16", [1, 1], b"ab"),
    ],
)
def test_values_are_tensors(
    kind: Type, value: Any, datatype: str, shape: list[int], raw: bytes
) -> None:
    response = kserve.ModelInferResponse()
    packing.add(response, "result", kind, value)
    (output,) = response.outputs
    assert (output.datatype, list(output.shape)) == (datatype, shape)
    assert list(response.raw_output_contents) == [raw]
    assert packing.config_type(packing.described(kind)[0]) >= 0
