from __future__ import annotations

from dataclasses import replace
from importlib.resources import files as resources
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings

from millstream.v1 import inference_pb2, types_pb2
from shared import protofile, typed
from shared.signature import Field, ListType, MapType, Record, Signature, TensorType
from shared.typed import Typed
from tests.unit.typed_cases import (
    COLOR,
    INT,
    JSON,
    SIGNATURES,
    STRING,
    TIME,
    record,
    signature,
)

WELL_KNOWN = str(resources("grpc_tools") / "_proto")


def compiled(described: list[FileDescriptorProto], into: Path) -> FileDescriptorProto:
    """The last file's descriptor, as protoc makes it of the text of all."""
    for one in described:
        if one.name.startswith("google/"):
            continue
        path = into / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(protofile.source(one))
    out = into / "set.bin"
    command = ["protoc", f"-I{into}", f"-I{WELL_KNOWN}", f"-o{out}", "--include_source_info"]
    assert protoc.main([*command, described[-1].name]) == 0
    return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def stripped(described: FileDescriptorProto) -> FileDescriptorProto:
    copy = FileDescriptorProto()
    copy.CopyFrom(described)
    copy.ClearField("source_code_info")
    queue = list(copy.message_type)
    while queue:
        message = queue.pop()
        queue.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    for service in copy.service:
        for method in service.method:
            if not method.client_streaming:
                method.ClearField("client_streaming")
            if not method.server_streaming:
                method.ClearField("server_streaming")
    return copy


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SIGNATURES)
def test_protoc_makes_the_same_of_the_text(tmp_path: Path, made: Signature) -> None:
    described = Typed(made).files
    assert stripped(compiled(described, tmp_path)) == stripped(described[-1])
    alias = typed.alias_file(made)
    assert stripped(compiled([*described, alias], tmp_path)) == stripped(alias)


@pytest.mark.parametrize("module", [types_pb2, inference_pb2])
def test_files_that_people_wrote(module: object, tmp_path: Path) -> None:
    described = []
    for one in (types_pb2, module):
        described.append(FileDescriptorProto())
        one.DESCRIPTOR.CopyToProto(described[-1])  # type: ignore[attr-defined]
    assert stripped(compiled(described, tmp_path)) == stripped(described[-1])


def test_names_inside_messages_hide_none_outside(tmp_path: Path) -> None:
    made = signature(
        record("FEntry", x=INT),
        echo_f=MapType(record("FEntry", x=INT)),
        google=TIME,
        millstream=JSON,
    )
    described = Typed(made).files
    assert stripped(compiled(described, tmp_path)) == stripped(described[-1])


def test_the_text_reads_well() -> None:
    fields = (
        Field("text", 1, STRING),
        Field("n", 2, INT, False, 3),
        Field("x", 3, TensorType("float32", ("batch", 384))),
        Field("at", 5, TIME, False),
        Field("by", 6, MapType(ListType(INT))),
        Field("color", 7, COLOR, False, "RED"),
    )
    made = Signature("echo", "1", Record("I", fields), STRING, True)
    made = replace(made, summary="Says it\x00 again.\r\n}\nservice Injected {}")
    assert protofile.source(Typed(made).files[-1]) == TEXT


TEXT = """\
syntax = "proto3";

package millstream.models.v1;

import "google/protobuf/timestamp.proto";
import "millstream/v1/types.proto";

// Says it  again.
// }
// service Injected {}
service Echo {
  rpc PredictStream(EchoRequest) returns (stream EchoResponse);
}

message EchoRequest {
  optional string text = 1;
  // Default: 3.
  optional int64 n = 2;
  // float32 of shape [batch, 384].
  millstream.v1.Tensor x = 3;
  // May be left out.
  google.protobuf.Timestamp at = 5;
  map<string, EchoInt64List> by = 6;
  // Default: "RED".
  optional EchoColor color = 7;
}

message EchoResponse {
  optional string result = 1;
  // The item's position, from 0.
  uint64 index = 2;
}

message EchoInt64List {
  repeated int64 values = 1;
}

enum EchoColor {
  ECHO_COLOR_UNSPECIFIED = 0;
  ECHO_COLOR_RED = 1;
  ECHO_COLOR_GREEN = 2;
}
"""


def test_other_syntax_is_refused() -> None:
    with pytest.raises(ValueError, match="proto3"):
        protofile.source(FileDescriptorProto(name="a.proto", syntax="proto2"))
