from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from gateway import health, reflection
from gateway.health import HealthService
from gateway.reflection import ReflectionService
from shared import descriptors as d
from tests.integration.grpc_peer import channel, eventually, serving

CHECK = "/grpc.health.v1.Health/Check"


@asynccontextmanager
async def health_client() -> AsyncIterator[tuple[HealthService, grpc.aio.Channel]]:
    service = HealthService()
    async with serving(service) as (_, port), channel(port) as client:
        yield service, client


def check(client: grpc.aio.Channel, name: str) -> grpc.aio.UnaryUnaryCall:
    call = client.unary_unary(
        CHECK, health.CheckRequest.SerializeToString, health.CheckResponse.FromString
    )
    return call(health.CheckRequest(service=name))


def watch(client: grpc.aio.Channel, name: str) -> grpc.aio.UnaryStreamCall:
    call = client.unary_stream(
        "/grpc.health.v1.Health/Watch",
        health.CheckRequest.SerializeToString,
        health.CheckResponse.FromString,
    )
    return call(health.CheckRequest(service=name))


async def test_check_follows_what_is_set() -> None:
    async with health_client() as (service, client):
        assert (await check(client, "")).status == health.NOT_SERVING
        service.set("", True)
        service.set("models/llama 3:8b", True)
        assert (await check(client, "")).status == health.SERVING
        assert (await check(client, "models/llama 3:8b")).status == health.SERVING
        service.remove("models/llama 3:8b")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(client, "models/llama 3:8b")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_streams_changes_and_only_changes() -> None:
    async with health_client() as (service, client):
        call = watch(client, "m")
        assert (await call.read()).status == health.SERVICE_UNKNOWN
        service.set("m", True)
        assert (await call.read()).status == health.SERVING
        service.set("m", True)
        service.set("other", True)
        service.set("m", False)
        assert (await call.read()).status == health.NOT_SERVING
        service.remove("m")
        assert (await call.read()).status == health.SERVICE_UNKNOWN
        call.cancel()
        await eventually(lambda: not service._watchers)


async def test_list_names_all() -> None:
    async with health_client() as (service, client):
        service.set("a", True)
        service.set("b", False)
        call = client.unary_unary(
            "/grpc.health.v1.Health/List",
            health.ListRequest.SerializeToString,
            health.ListResponse.FromString,
        )
        statuses = (await call(health.ListRequest())).statuses
        assert {name: statuses[name].status for name in statuses} == {
            "": health.NOT_SERVING,
            "a": health.SERVING,
            "b": health.NOT_SERVING,
        }


async def test_a_watch_does_not_hold_up_a_drain() -> None:
    service = HealthService()
    async with serving(service) as (server, port), channel(port) as client:
        call = watch(client, "")
        assert (await call.read()).status == health.NOT_SERVING
        async with asyncio.timeout(30):
            await server.drain(60)
        service.set("", True)
        assert (await call.read()).status == health.SERVING


def _model(fields: int, name: str = "dyn/model.proto") -> FileDescriptorProto:
    numbered = (d.field(f"f{i}", i, "string") for i in range(1, fields + 1))
    wrapped = d.field("wrapped", 99, ".google.protobuf.StringValue")
    methods = [d.method("Run", ".dyn.Request", ".dyn.Request", server=True)]
    return d.file(
        name,
        "dyn",
        [d.message("Request", *numbered, wrapped)],
        [d.service("Model", *methods)],
        ["google/protobuf/wrappers.proto"],
    )


async def test_reflection_answers_grpcios_client_and_grows_at_run_time() -> None:
    service = ReflectionService()
    service.add([health.FILE], [health.SERVICE])
    service.add_module(error_details_pb2.DESCRIPTOR)
    async with serving(service) as (_, port):

        def ask() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as client:
                database = ProtoReflectionDescriptorDatabase(client)
                assert set(database.get_services()) == {
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                }
                file = database.FindFileContainingSymbol("grpc.health.v1.Health.Check")
                assert file.name == "grpc/health/v1/health.proto"
                # An import of an added module, known by itself.
                by_name = database.FindFileByName("google/protobuf/duration.proto")
                assert by_name.package == "google.protobuf"
                with pytest.raises(KeyError):
                    database.FindFileContainingSymbol("no.Such")
                service.add([_model(2)], ["dyn.Model"])
                assert "dyn.Model" in database.get_services()
                assert len(_fields(client)) == 3
                service.add([_model(4)], ["dyn.Model"])
                assert len(_fields(client)) == 5
                service.remove(["dyn.Model"])
                assert "dyn.Model" not in database.get_services()

        await asyncio.to_thread(ask)


def _fields(client: grpc.Channel) -> list[FieldDescriptorProto]:
    file = ProtoReflectionDescriptorDatabase(client).FindFileContainingSymbol("dyn.Request.f1")
    return list(file.message_type[0].field)


@pytest.mark.parametrize("version", reflection.VERSIONS)
async def test_reflection_v1_and_v1alpha_answer_every_kind_of_request(version: str) -> None:
    service = ReflectionService()
    extension = FieldDescriptorProto(
        name="mark", number=50_001, extendee=".google.protobuf.MessageOptions"
    )
    extending = FileDescriptorProto(
        name="ext.proto", package="ext", dependency=["google/protobuf/descriptor.proto"]
    )
    extending.extension.append(extension)
    service.add([_model(1), extending])
    types = reflection._TYPES[version]
    request = types["ServerReflectionRequest"]
    by_extension = types["ExtensionRequest"](
        containing_type="google.protobuf.MessageOptions", extension_number=50_001
    )
    asked = [
        request(file_containing_symbol="dyn.Model.Run"),
        request(file_by_filename="nope.proto"),
        request(file_containing_extension=by_extension),
        request(all_extension_numbers_of_type="google.protobuf.MessageOptions"),
        request(all_extension_numbers_of_type="no.Type"),
        request(list_services=""),
        request(),
    ]
    async with serving(service) as (_, port), channel(port) as client:
        call = client.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request.SerializeToString,
            types["ServerReflectionResponse"].FromString,
        )
        answers = [answer async for answer in call(iter(asked))]
    assert [answer.original_request for answer in answers] == asked
    files = [
        FileDescriptorProto.FromString(data)
        for data in answers[0].file_descriptor_response.file_descriptor_proto
    ]
    assert [f.name for f in files] == ["dyn/model.proto", "google/protobuf/wrappers.proto"]
    assert answers[1].error_response.error_code == 5
    (found, *_) = answers[2].file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(found).name == "ext.proto"
    assert list(answers[3].all_extension_numbers_response.extension_number) == [50_001]
    assert answers[4].error_response.error_code == 5
    assert len(answers[5].list_services_response.service) == 2
    assert answers[6].error_response.error_code == 3


def test_an_import_that_nobody_has_is_an_error() -> None:
    lonely = d.file("lonely.proto", "", [], imports=["not/there.proto"])
    with pytest.raises(ValueError, match=r"lonely.proto imports not/there.proto"):
        ReflectionService().add([lonely])
    assert wrappers_pb2.DESCRIPTOR.name == "google/protobuf/wrappers.proto"
