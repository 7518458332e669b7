"""grpc.health.v1: Check, Watch and List over names that are set while the server runs."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, MessageOptions
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from shared.descriptors import classes, field, file, message, method, service

SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

_P = ".grpc.health.v1."


def _list_response() -> DescriptorProto:
    entry = message(
        "StatusesEntry",
        field("key", 1, "string"),
        field("value", 2, _P + "HealthCheckResponse"),
    )
    entry.options.CopyFrom(MessageOptions(map_entry=True))
    entry_type = _P + "HealthListResponse.StatusesEntry"
    response = message("HealthListResponse", field("statuses", 1, entry_type, repeated=True))
    response.nested_type.append(entry)
    return response


def _check_response() -> DescriptorProto:
    names = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
    status = EnumDescriptorProto(name="ServingStatus")
    for number, name in enumerate(names):
        status.value.add(name=name, number=number)
    response = message(
        "HealthCheckResponse", field("status", 1, _P + "HealthCheckResponse.ServingStatus")
    )
    response.enum_type.append(status)
    return response


FILE = file(
    "grpc/health/v1/health.proto",
    "grpc.health.v1",
    [
        message("HealthCheckRequest", field("service", 1, "string")),
        _check_response(),
        message("HealthListRequest"),
        _list_response(),
    ],
    [
        service(
            "Health",
            method("Check", _P + "HealthCheckRequest", _P + "HealthCheckResponse"),
            method("List", _P + "HealthListRequest", _P + "HealthListResponse"),
            method("Watch", _P + "HealthCheckRequest", _P + "HealthCheckResponse", server=True),
        )
    ],
)
"""The official file, for reflection."""

_TYPES = classes(FILE)
CheckRequest = _TYPES["HealthCheckRequest"]
CheckResponse = _TYPES["HealthCheckResponse"]
ListRequest = _TYPES["HealthListRequest"]
ListResponse = _TYPES["HealthListResponse"]


class HealthService:
    """Says what serves: the whole under "", and any other name: a gRPC service's, a model's.

    The whole is not serving until it is set.
    """

    background: ClassVar[bool] = True

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {"": False}
        self._watchers: dict[str, set[asyncio.Event]] = {}

    def set(self, service: str, serving: bool) -> None:
        """Set a name's health; watchers hear of it at once."""
        self._serving[service] = serving
        self._notify(service)

    def remove(self, service: str) -> None:
        """Forget a name; Check answers NOT_FOUND and Watch SERVICE_UNKNOWN."""
        self._serving.pop(service, None)
        self._notify(service)

    def __mapping__(self) -> dict[str, Handler]:
        """The methods, for the server."""
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"/{SERVICE}/Check": Handler(self._check, unary, CheckRequest, CheckResponse),
            f"/{SERVICE}/List": Handler(self._list, unary, ListRequest, ListResponse),
            f"/{SERVICE}/Watch": Handler(self._watch, stream, CheckRequest, CheckResponse),
        }

    async def _check(self, stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            raise GRPCError(Status.NOT_FOUND, f"{request.service!r} is not known here")
        await stream.send_message(CheckResponse(status=status))

    async def _list(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        response = ListResponse()
        for name in self._serving:
            response.statuses[name].status = self._status(name)
        await stream.send_message(response)

    async def _watch(self, stream: Stream[Any, Any]) -> None:
        request: Any = await stream.recv_message()
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(request.service, set())
        watchers.add(changed)
        sent = None
        try:
            while True:
                changed.clear()
                status = self._status(request.service)
                if status != sent:
                    await stream.send_message(CheckResponse(status=status))
                    sent = status
                await changed.wait()
        finally:
            watchers.discard(changed)
            if not watchers and self._watchers.get(request.service) is watchers:
                del self._watchers[request.service]

    def _status(self, name: str) -> int:
        serving = self._serving.get(name)
        if serving is None:
            return SERVICE_UNKNOWN
        return SERVING if serving else NOT_SERVING

    def _notify(self, name: str) -> None:
        for watcher in self._watchers.get(name, ()):
            watcher.set()
