"""The gateway's settings: variables MILLSTREAM_GATEWAY_*, flags of `millstream gateway`."""

from __future__ import annotations

from pathlib import Path
from ssl import SSLContext
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.settings import NAME_PATTERN, Port, ProcessSettings
from shared.tls import server_context


class GatewaySettings(ProcessSettings):
    """What a gateway can be told; its ready file gets `host:port` of the gRPC listener.

    Where HTTP is served too, a second line says where.
    """

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_GATEWAY_")
    role: ClassVar[str] = "gateway"

    name: str = Field("gw", pattern=NAME_PATTERN, description="outlives a restart; unique")
    grpc_host: str = Field("0.0.0.0", min_length=1, description="address to listen on")
    grpc_port: Port = Field(50051, description="port to listen on; 0 is any free one")
    processes: int = Field(
        1, ge=1, le=256, description="share the ports among so many processes, one core each"
    )
    max_message_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, le=1 << 30, description="largest gRPC message taken"
    )
    max_streams: int = Field(
        4096, ge=1, le=1_000_000, description="concurrent streams a connection may open"
    )
    max_queue: int = Field(
        1000,
        ge=1,
        description="requests that may wait, a model and class; gateways share the queues, and "
        "the one that connected last sets it",
    )
    max_queue_seconds: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="how long one without a deadline may wait"
    )
    refuse_late: bool = Field(
        True, description="refuse at once what would wait until its deadline has passed"
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds between a stop and the drain: it serves on, and says it is not ready",
    )
    http_host: str = Field("0.0.0.0", min_length=1, description="address to listen on for HTTP")
    http_port: Port | None = Field(
        None, description="serve HTTP (OpenAI, TGI, SSE, WebSocket) here; 0 is any free port"
    )
    http_cors: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call, separated by commas; * is any"
    )
    http_max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, le=1 << 30, description="largest HTTP body taken"
    )
    http_ping_seconds: float = Field(
        15.0, gt=0, allow_inf_nan=False, description="a silent stream gets a comment this often"
    )

    api_keys: Path | None = Field(
        None, description="callers need a key of this file, which `millstream keys` makes"
    )
    tls_cert: Path | None = Field(
        None, description="serve TLS with this certificate (PEM chain); reloaded on change"
    )
    tls_key: Path | None = Field(None, description="its private key (PEM)")
    tls_client_ca: Path | None = Field(
        None, description="clients must show a certificate of these authorities (PEM)"
    )

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: both or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca: only with tls_cert and tls_key")
        return self

    def tls(self, *protocols: str) -> SSLContext | None:
        """The context of a TLS listener, or None.

        Raises:
            TlsError: The files cannot be used.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        return server_context(
            self.tls_cert,
            self.tls_key,
            client_ca=self.tls_client_ca,
            protocols=protocols or ("h2",),
        )

    @field_validator("http_cors", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @field_validator("http_cors")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError("* or origins like https://example.org, separated by commas")
        return origins
