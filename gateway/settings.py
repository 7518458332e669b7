"""The gateway's settings: variables MILLSTREAM_GATEWAY_*, flags of `millstream gateway`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings import NAME_PATTERN, Port, ProcessSettings


class GatewaySettings(ProcessSettings):
    """What a gateway can be told; its ready file gets `host:port` of the gRPC listener."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_GATEWAY_")

    name: str = Field("gw", pattern=NAME_PATTERN, description="outlives a restart; unique")
    grpc_host: str = Field("0.0.0.0", min_length=1, description="address to listen on")
    grpc_port: Port = Field(50051, description="port to listen on; 0 is any free one")
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, le=1 << 30, description="largest gRPC message taken"
    )
    max_streams: int = Field(
        4096, ge=1, le=1_000_000, description="concurrent streams a connection may open"
    )
    max_queue: int = Field(1000, ge=1, description="requests that may wait, a model and class")
    max_queue_seconds: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="how long one without a deadline may wait"
    )
