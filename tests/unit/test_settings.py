from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from shared import flags
from shared.settings import ProcessSettings, SettingsError, load
from workers.settings import WorkerSettings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NATS", "LOG_LEVEL", "LOG_FORMAT"):
        for prefix in ("MILLSTREAM_", "MILLSTREAM_GATEWAY_", "MILLSTREAM_WORKER_"):
            monkeypatch.delenv(prefix + name, raising=False)


def test_a_flag_wins_over_the_own_variable_over_the_common_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(GatewaySettings, {}).nats == ("nats://127.0.0.1:4222",)
    monkeypatch.setenv("MILLSTREAM_NATS", "nats://common:1, tls://common:2")
    assert load(GatewaySettings, {}).nats == ("nats://common:1", "tls://common:2")
    monkeypatch.setenv("MILLSTREAM_GATEWAY_NATS", "nats://own")
    assert load(GatewaySettings, {}).nats == ("nats://own",)
    assert load(WorkerSettings, {}).nats == ("nats://common:1", "tls://common:2")
    assert load(GatewaySettings, {"nats": "nats://flag", "name": None}).nats == ("nats://flag",)


def test_only_what_every_process_has_is_common(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_GRPC_PORT", "1")
    monkeypatch.setenv("MILLSTREAM_LOG_LEVEL", "DEBUG")
    settings = load(GatewaySettings, {})
    assert settings.grpc_port == 50051
    assert settings.log_level == "debug"


@pytest.mark.parametrize(
    ("cls", "given", "line"),
    [
        (
            GatewaySettings,
            {"grpc_port": "70000"},
            "--grpc-port: '70000' is not allowed: must be less than or equal to 65535",
        ),
        (
            GatewaySettings,
            {"drain_grace": "nan"},
            "--drain-grace: 'nan' is not allowed: must be a finite number",
        ),
        (
            GatewaySettings,
            {"name": "a b"},
            "--name: 'a b' is not allowed: String must match pattern '^[A-Za-z0-9_-]{1,64}$'",
        ),
        (
            GatewaySettings,
            {"nats": "http://x"},
            "--nats: 'http://x' is not allowed: URLs like nats://HOST:4222, separated by commas",
        ),
        (
            GatewaySettings,
            {"nats_creds": "/nowhere"},
            "--nats-creds: '/nowhere' is not allowed: a file that exists",
        ),
        (
            WorkerSettings,
            {"engine": "magic"},
            "--engine: 'magic' is not allowed: must be 'sim', 'torch' or 'vllm'",
        ),
        (
            WorkerSettings,
            {"engine": "vllm"},
            "MILLSTREAM_WORKER_MODEL: nothing is not allowed: "
            "vllm needs one: a checkpoint directory or hub id",
        ),
        (
            WorkerSettings,
            {"engine_args": ["fast"]},
            "--engine-arg: 'fast' is not allowed: KEY=VALUE, or a JSON object",
        ),
        (
            GatewaySettings,
            {"tls_cert": "/c.pem"},
            "tls_cert and tls_key: both or none",
        ),
        (
            GatewaySettings,
            {"tls_client_ca": "/ca.pem"},
            "tls_client_ca: only with tls_cert and tls_key",
        ),
        (
            WorkerSettings,
            {"ready_file": "/nope/x"},
            "--ready-file: '/nope/x' is not allowed: "
            "a file in a folder that exists and may be written to",
        ),
        (
            GatewaySettings,
            {"ready_file": "/"},
            "--ready-file: '/' is not allowed: "
            "a file in a folder that exists and may be written to",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    cls: type[ProcessSettings], given: dict[str, Any], line: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(cls, given)
    assert caught.value.problems == [line]


def test_every_problem_has_a_line_and_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MILLSTREAM_GATEWAY_MAX_STREAMS", "0")
    monkeypatch.setenv("MILLSTREAM_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, {})
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "MILLSTREAM_LOG_FORMAT",
        "MILLSTREAM_GATEWAY_MAX_STREAMS",
    ]


@pytest.mark.parametrize(
    ("cls", "name", "told"),
    [
        (GatewaySettings, "MILLSTREAM_GATEWAY_API_KEY", ": is it MILLSTREAM_GATEWAY_API_KEYS?"),
        (GatewaySettings, "millstream_gateway_tls_crt", ": is it MILLSTREAM_GATEWAY_TLS_CERT?"),
        (WorkerSettings, "MILLSTREAM_WORKER_ENGINE_ARG", ": is it MILLSTREAM_WORKER_ENGINE_ARGS?"),
        (WorkerSettings, "MILLSTREAM_WORKER_X", "; --help lists them"),
    ],
)
def test_a_variable_that_names_no_setting_is_refused(
    cls: type[ProcessSettings], name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hush")
    with pytest.raises(SettingsError) as caught:
        load(cls, {})
    assert caught.value.problems == [f"{name}: no such setting{told}"]
    monkeypatch.setenv("MILLSTREAM_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load(cls, {})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILLSTREAM_WORKER_ENGIN", "the other role's"),
        ("MILLSTREAM_SCHEDULES", "not of a role"),
        ("MILLSTREAM_GATEWAY_API_KEYS", ""),
        ("MILLSTREAM_GATEWAY_PORT", "tcp://10.0.0.7:50051"),
        ("MILLSTREAM_GATEWAY_PORT_50051_TCP", "tcp://10.0.0.7:50051"),
        ("MILLSTREAM_GATEWAY_PORT_50051_TCP_ADDR", "10.0.0.7"),
        ("MILLSTREAM_GATEWAY_SERVICE_HOST", "10.0.0.7"),
        ("MILLSTREAM_GATEWAY_SERVICE_PORT_GRPC", "50051"),
        ("MILLSTREAM_GATEWAY_CANARY_SERVICE_PORT", "50051"),
    ],
)
def test_a_variable_that_somebody_else_sets_is_left_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert load(GatewaySettings, {}).api_keys is None


@pytest.mark.parametrize("url", ["http://me:hush@a", "nats://ok,http://me:hu,sh@a:1"])
def test_a_password_is_never_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, {"nats": url})
    assert "***@a" in str(caught.value)
    assert "hu" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"a": 1, "b": "x=y", "c": True},
        ["a=1", "b=x=y", "c=true"],
        '{"a": 1, "b": "x=y", "c": true}',
        "a=1, b=x=y ,c=true",
    ],
)
def test_engine_args(given: object) -> None:
    settings = load(WorkerSettings, {"engine_args": given})
    assert settings.engine_args == {"a": "1", "b": "x=y", "c": "true"}


def test_settings_are_frozen() -> None:
    settings = load(GatewaySettings, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.name = "other"


def test_credentials_for_nats(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush\n")
    settings = load(WorkerSettings, {"nats_user": "w", "nats_password_file": str(secret)})
    assert dict(settings.nats_connect()) == {
        "inbox_prefix": "_INBOX_worker",
        "user": "w",
        "password": "hush",
    }
    assert "hush" not in repr(settings)


def test_flags_and_their_errors(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--engine", "sim", "--engine-arg", "a=1", "--engine-arg", "b=2", "--max-batch", "8"]
    settings = flags.parse(WorkerSettings, argv, prog="worker", description="")
    assert settings.engine_args == {"a": "1", "b": "2"}
    assert settings.max_batch == 8
    with pytest.raises(SystemExit) as caught:
        flags.parse(WorkerSettings, ["--max-batch", "none"], prog="worker", description="")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("--max-batch: 'none' is not allowed: must be a valid")


@pytest.mark.parametrize("cls", [GatewaySettings, WorkerSettings])
def test_every_setting_says_what_it_is(
    cls: type[ProcessSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(field.description for field in cls.model_fields.values())
    with pytest.raises(SystemExit):
        flags.parse(cls, ["--help"], prog="it", description="")
    assert "--drain-grace" in capsys.readouterr().out
