from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import typed
from shared.signature import EnumType, Field, ListType, MapType, Record, Scalar, Signature, Type
from shared.typed import Typed
from shared.typed import rules as signature_rules
from tests.unit.typed_cases import (
    COLOR,
    DOUBLE,
    INT,
    JSON,
    SIGNATURES,
    STRING,
    record,
    signature,
)

ROOT = Path(__file__).parents[2]


@settings(deadline=None)
@given(SIGNATURES)
def test_a_signature_comes_back_from_its_bytes(made: Signature) -> None:
    data = typed.dump(made)
    assert typed.load(data) == made
    assert typed.dump(typed.load(data)) == data


@settings(max_examples=50, deadline=None)
@given(SIGNATURES)
def test_every_lawful_signature_has_messages(made: Signature) -> None:
    built = Typed(made)
    names = [f.name for f in built.request.DESCRIPTOR.fields]
    assert names == [f.name for f in made.inputs.fields]
    assert built.response.DESCRIPTOR.full_name == f"{built.service}Response"


@settings(max_examples=20, deadline=None)
@given(SIGNATURES)
def test_every_comment_has_a_span_without_which_go_refuses_the_file(made: Signature) -> None:
    for described in typed.files(made):
        assert all(len(one.span) in (3, 4) for one in described.source_code_info.location)


def test_names() -> None:
    made = Signature("my-big_model", "1.2", record("I"), None, streaming=True)
    built = Typed(made)
    assert built.path == "/millstream.models.v1_2.MyBigModel/PredictStream"
    assert built.alias_path == "/millstream.models.MyBigModel/PredictStream"
    assert built.files[-1].name == "millstream/models/v1_2/my_big_model.proto"
    alias = typed.alias_file(made)
    assert alias.name == "millstream/models/my_big_model.proto"
    assert list(alias.dependency) == [built.files[-1].name]
    assert alias.service[0].method[0].input_type == ".millstream.models.v1_2.MyBigModelRequest"
    assert [f.name for f in built.response.DESCRIPTOR.fields] == ["index"]


def test_messages_of_a_signature() -> None:
    point = record("Point", x=DOUBLE)
    made = signature(
        ListType(point), color=COLOR, grid=ListType(ListType(INT)), by=MapType(ListType(point))
    )
    built = Typed(made)
    fields = built.request.DESCRIPTOR.fields_by_name
    assert fields["color"].has_presence
    assert fields["color"].enum_type.name == "EchoColor"
    assert fields["color"].enum_type.values_by_number[1].name == "ECHO_COLOR_RED"
    assert fields["grid"].message_type.name == "EchoInt64List"
    assert fields["by"].message_type.fields_by_name["value"].message_type.name == "EchoPointList"
    assert built.response.DESCRIPTOR.fields[0].message_type.name == "EchoPoint"


def test_names_that_clash_are_told_apart() -> None:
    made = signature(
        None,
        a=record("Request", x=INT),
        b=record("Request", y=INT),
        c=record("Int64List", values=ListType(INT)),
        d=ListType(ListType(INT)),
        e=EnumType("A", ("B_C",)),
        f=EnumType("A_B", ("C",)),
    )
    fields = Typed(made).request.DESCRIPTOR.fields_by_name
    names = [(f.message_type or f.enum_type).name for f in fields.values()]
    assert names == [
        "EchoRequest2", "EchoRequest3", "EchoInt64ListRecord", "EchoInt64List", "EchoA", "EchoA_B2",
    ]  # fmt: skip


def named(name: str) -> Signature:
    return replace(signature(), inputs=Record("I", (Field(name, 1, INT),)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (named("DESCRIPTOR"), "method"),
        (named("a b"), "want"),
        (named("a\n"), "want"),
        (signature(None, a_b=INT, aB=INT), "JSON name"),
        (signature(None, a=MapType(INT), _a=MapType(INT)), "map entry"),
        (signature(None, a=EnumType("E", ())), "no members"),
        (signature(None, a=EnumType("E", ("RED", "red"))), "twice"),
        (signature(None, a=EnumType("E", ("Unspecified",))), "twice"),
        (replace(signature(None), name="1x"), "the name"),
        (replace(signature(None), version=""), "the version"),
        (signature(None, a=Scalar("int32")), "no known kind"),  # type: ignore[arg-type]
        (replace(signature(), inputs=Record("I", (Field("a", 0, INT),))), "number 0"),
        (replace(signature(), inputs=Record("I", (Field("a", 19500, INT),))), "number 19500"),
        (replace(signature(), inputs=Record("I", (Field("a", 1, INT, False, {1}),))), "no JSON"),
        (
            replace(signature(), inputs=Record("I", (Field("a", 1, INT), Field("b", 1, INT)))),
            "number 1 comes twice",
        ),
    ],
)
def test_what_protobuf_cannot_have_is_refused(wrong: Signature, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        typed.dump(wrong)


def nested(depth: int) -> Type:
    type_: Type = INT
    for _ in range(depth):
        type_ = ListType(type_)
    return type_


def test_depth_and_size_are_bounded() -> None:
    Typed(signature(nested(signature_rules.DEEPEST)))
    with pytest.raises(ValueError, match="recursive"):
        typed.dump(signature(nested(signature_rules.DEEPEST + 1)))
    wide = record("W", **{f"f{i}": INT for i in range(100)})
    with pytest.raises(ValueError, match="more than 4096 types"):
        typed.dump(signature(record("R", **{f"f{i}": wide for i in range(100)})))
    with pytest.raises(ValueError, match="bytes as JSON"):
        long = Field("a", 1, STRING, False, "x" * signature_rules.MOST_BYTES)
        typed.dump(replace(signature(), inputs=Record("I", (long,))))


def test_a_diamond_of_records_is_refused_quickly() -> None:
    type_: Type = INT
    for depth in range(signature_rules.DEEPEST):
        type_ = record(f"R{depth}", **{f"f{i}": type_ for i in range(100)})
    with pytest.raises(ValueError, match="4096"):
        Typed(signature(type_))


GOOD = json.loads(typed.dump(signature(INT, a=COLOR, b=ListType(JSON))))


def altered(path: str, value: Any) -> bytes:
    copy = json.loads(json.dumps(GOOD))
    *way, last = path.split("/")
    inner = copy
    for step in way:
        inner = inner[int(step) if step.isdecimal() else step]
    inner[last] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * (signature_rules.MOST_BYTES + 1),
        altered("name", 1),
        altered("name", "a b"),
        altered("version", "1\n"),
        altered("streaming", 1),
        altered("summary", None),
        altered("inputs", []),
        altered("output", {"kind": "nothing"}),
        altered("output", {"kind": []}),
        altered("output", {"kind": "list"}),
        altered("output", {"kind": "tensor", "dtype": "float31", "shape": None}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": [-1]}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": [1.5]}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": [True]}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": [1 << 70]}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": [1] * 33}),
        altered("output", {"kind": "tensor", "dtype": "", "shape": {}}),
        altered("inputs/fields/0/number", "1"),
        altered("inputs/fields/0/number", True),
        altered("inputs/fields/0/number", 1 << 40),
        altered("inputs/fields/0/required", None),
        altered("inputs/fields/0/type", None),
        altered("inputs/fields/0/type/members", [1]),
        altered("inputs/fields/0/type/members", "AB"),
        altered("inputs/fields/0/name", "__class__"),
        altered("inputs/fields/0/name", "HasField"),
        altered("inputs/fields/0/default", [[[[[[[[[[[[1]]]]]]]]]]]]),
    ],
)
def test_nonsense_from_the_network_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        typed.load(data)


@given(st.binary(max_size=64) | st.text().map(lambda t: json.dumps({"name": t}).encode()))
def test_no_bytes_break_loading(data: bytes) -> None:
    with pytest.raises(ValueError):
        typed.load(data)


def test_unknown_members_are_ignored() -> None:
    assert typed.load(altered("newer", {})) == typed.load(json.dumps(GOOD).encode())


def test_a_fingerprint_is_of_what_must_be_agreed_on() -> None:
    made = signature(INT, a=STRING)
    same = replace(made, summary="Other words.", default=True)
    assert typed.fingerprint(same) == typed.fingerprint(made)
    assert typed.fingerprint(made).startswith("echo@1-")
    assert typed.fingerprint(replace(made, output=STRING)) != typed.fingerprint(made)


def test_versions_in_natural_order() -> None:
    versions = ["10a", "10", "2", "1.10", "1", "1.2", "01", "beta"]
    assert sorted(versions, key=typed.natural) == [
        "beta", "01", "1", "1.2", "1.10", "2", "10", "10a",
    ]  # fmt: skip


def test_numpy_is_not_imported() -> None:
    code = "import shared.typed, shared.values, sys; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
