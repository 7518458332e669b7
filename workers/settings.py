"""A worker's settings: environment variables MILLSTREAM_WORKER_*, flags of `millstream worker`."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.settings import NAME_PATTERN, ProcessSettings

EngineName = Literal["sim", "torch", "vllm"]

ITL_TARGET_MS: Mapping[EngineName, float] = {"sim": 0.0, "torch": 100.0, "vllm": 100.0}
"""Faster than people read, where the model and the machine can: see docs/models.md."""


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "worker"


class WorkerSettings(ProcessSettings):
    """What a worker can be told; its ready file gets the served name once the model is loaded."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_WORKER_", protected_namespaces=())
    role: ClassVar[str] = "worker"

    name: str = Field(
        default_factory=_host_name,
        pattern=NAME_PATTERN,
        description="outlives a restart; unique; by default the host's",
    )
    app: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="MODULE:ATTRIBUTE of an App: serve its functions instead of a model",
    )
    reload: bool = Field(
        False, description="start anew when a Python file below this folder changes (development)"
    )
    replace_signature: bool = Field(
        False, description="take a function's name over from workers with another signature"
    )
    engine: EngineName = Field("torch", description="sim, torch or vllm")
    model: str | None = Field(
        None,
        min_length=1,
        validate_default=True,
        description="a checkpoint directory or hub id; torch has a bundled one",
    )
    served_name: str | None = Field(
        None, min_length=1, max_length=256, description="the model's name in requests"
    )
    engine_args: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="KEY=VALUE, repeatable; the engine's own settings"
    )
    revision: str | None = Field(
        None, min_length=1, description="of a hub model: a branch, tag or commit"
    )
    token_file: Path | None = Field(None, description="holds the hub's token, for gated models")
    cache_dir: Path | None = Field(None, description="where models from the hub are kept")
    dtype: Literal["float32", "float16", "bfloat16", "int8"] | None = Field(
        None, description="float32, float16, bfloat16 or int8; by default the engine's choice"
    )
    quantization: str | None = Field(
        None, min_length=1, description="how the weights are quantized, where vllm cannot tell"
    )
    context_length: int | None = Field(
        None, ge=2, description="tokens of prompt and answer; by default what the model can"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the checkpoint; vllm only"
    )
    max_batch: int | None = Field(
        None, ge=1, le=65536, description="most requests at once; by default the engine's choice"
    )
    itl_target_ms: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="milliseconds between two tokens to hold by taking less; 0 is off",
    )
    batch_floor: float = Field(
        0.05, ge=0, lt=1, description="share of turns in which batch work is asked for first"
    )
    heartbeat_seconds: float = Field(
        0.1, ge=0.01, le=2.0, description="seconds between two heartbeats"
    )

    @field_validator("engine_args", mode="before")
    @classmethod
    def _parse_engine_args(cls, value: object) -> object:
        """Take a mapping, `KEY=VALUE` items, a JSON object or `a=1,b=2`."""
        if isinstance(value, str):
            text = value.strip()
            value = _json(text) if text.startswith("{") else text.split(",")
        if isinstance(value, dict):
            return {str(key): _as_text(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return dict(_pair(item) for item in value)
        return value

    @field_validator("token_file")
    @classmethod
    def _check_token_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("a file that exists")
        return path

    @property
    def itl_target(self) -> float | None:
        """Seconds between two tokens that admission holds, or None."""
        given = self.itl_target_ms
        milliseconds = ITL_TARGET_MS[self.engine] if given is None else given
        return milliseconds / 1000 or None

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None and info.data.get("engine") == "vllm":
            raise ValueError("vllm needs one: a checkpoint directory or hub id")
        return model


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"KEY=VALUE, or a JSON object ({error})") from None


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _pair(item: object) -> tuple[str, str]:
    key, equals, value = str(item).partition("=")
    if not equals or not key.strip():
        raise ValueError("KEY=VALUE, or a JSON object")
    return key.strip(), value.strip()
