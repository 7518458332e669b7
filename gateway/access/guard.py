"""At the door of the gRPC server: every call is admitted before its handler sees it."""

from __future__ import annotations

from gateway.access.access import Access
from gateway.grpc.headers import Metadata
from gateway.server import GrpcServer

TENANT = "millstream-tenant"
"""The metadata under which handlers find the tenant; what a client sends under it is dropped."""

OPEN = (
    "/grpc.health.v1.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
"""Anybody may ask these: whether the gateway is well, and what the API looks like."""


def guard(server: GrpcServer, access: Access) -> None:
    """Admit every call of a server that is not open to all."""

    def admit(path: str, metadata: Metadata) -> None:
        metadata.popall(TENANT, None)
        if not path.startswith(OPEN):
            header = metadata.get("authorization", "")
            metadata[TENANT] = access.admit(header if isinstance(header, str) else "")

    server.admit_by(admit)
