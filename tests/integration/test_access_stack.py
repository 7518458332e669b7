"""API keys and limits at a real gateway, over gRPC and HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from gateway.access import Limits
from gateway.access.guard import TENANT
from gateway.access.keys import changing
from millstream import Client, SyncClient
from millstream.nats_server import NatsServer
from millstream.v1 import inference_pb2 as pb
from millstream.v1.inference_grpc import InferenceStub
from shared.errors import (
    Cancelled,
    Forbidden,
    Overloaded,
    Unauthenticated,
    UnknownModel,
    UnknownRequest,
)
from tests.eventually import eventually
from tests.integration.processes import Parts


@dataclass
class Guarded:
    """A gateway that asks for keys, and a worker."""

    parts: Parts
    target: str
    http: str
    keys: Path

    def key(self, tenant: str, limits: Limits | None = None) -> str:
        """Make a key and wait until the gateway knows it."""
        with changing(self.keys) as book:
            book.tenants[tenant] = limits or book.tenants.get(tenant, Limits())
            secret = book.create(tenant)

        def known() -> bool:
            try:
                with SyncClient(self.target, api_key=secret) as client:
                    client.models(deadline=30.0)
            except Unauthenticated:
                return False
            return True

        eventually(known, "the gateway read the file again")
        return secret

    def client(self, key: str | None) -> SyncClient:
        return SyncClient(self.target, api_key=key)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys.json"
    with changing(keys):
        pass
    with NatsServer(folder / "nats") as nats, Parts(folder, {"MILLSTREAM_NATS": nats.url}) as parts:
        target = parts.gateway(
            "--api-keys", str(keys), "--http-port", "0", "--grpc-host", "127.0.0.1"
        )
        parts.worker("one", "--engine-arg", "step_ms=2")
        http = parts.ready("gateway").splitlines()[1].rsplit(":", 1)[1]
        yield Guarded(parts, target, f"http://127.0.0.1:{http}", keys)


@pytest.mark.parametrize("key", [None, "nonsense", "ms_00000000_" + "A" * 43])
def test_without_a_known_key_nothing_is_answered(guarded: Guarded, key: str | None) -> None:
    with guarded.client(key) as client:
        for call in (
            lambda: client.complete("x", model="sim", max_tokens=1),
            lambda: client.models(),
            lambda: client.model("sim"),
            lambda: client.cancel("x"),
        ):
            with pytest.raises(Unauthenticated):
                call()


def test_health_needs_no_key(guarded: Guarded) -> None:
    with guarded.client(None) as client:
        assert client.health()


def test_a_key_made_and_revoked_while_the_gateway_runs(guarded: Guarded) -> None:
    secret = guarded.key("acme")
    with guarded.client(secret) as client:
        assert client.complete("x", model="sim", max_tokens=2).text == " 0 1"
        with changing(guarded.keys) as book:
            book.revoke(secret.split("_")[1])

        def refused() -> bool:
            try:
                client.complete("x", model="sim", max_tokens=1)
            except Unauthenticated:
                return True
            return False

        eventually(refused, "the key is refused")


def test_models_and_priorities_that_are_not_granted(guarded: Guarded) -> None:
    batch = guarded.key("batch-only", Limits(priorities=("batch",)))
    with guarded.client(batch) as client:
        assert client.complete("x", model="sim", max_tokens=1, priority="batch").text == " 0"
        with pytest.raises(Forbidden, match="priority interactive"):
            client.complete("x", model="sim", max_tokens=1, priority="interactive")
    other = guarded.key("other-model", Limits(models=("large",)))
    with guarded.client(other) as client:
        with pytest.raises(Forbidden, match="model 'sim'"):
            client.complete("x", model="sim", max_tokens=1)
        with pytest.raises(UnknownModel):
            client.complete("x", model="large", max_tokens=1)


async def test_a_reached_limit_says_which_and_when(guarded: Guarded) -> None:
    secret = guarded.key("slow", Limits(requests_per_second=0.01, request_burst=1))
    host, port = guarded.target.split(":")
    async with Channel(host, int(port)) as channel:
        stub = InferenceStub(channel)
        request = pb.GenerateRequest(model="sim", prompt="x", sampling=pb.Sampling(max_tokens=1))
        metadata = {"authorization": f"Bearer {secret}"}
        await stub.Generate(request, metadata=metadata)
        with pytest.raises(GRPCError) as caught:
            await stub.Generate(request, metadata=metadata)
    error = caught.value
    assert error.status is Status.RESOURCE_EXHAUSTED
    details = {type(detail): detail for detail in error.details or ()}
    assert details[QuotaFailure].violations[0].subject == "tenants/slow/requests_per_second"
    assert 50 < details[RetryInfo].retry_delay.ToTimedelta().total_seconds() <= 100


async def test_streams_at_a_time_are_counted_until_they_end(guarded: Guarded) -> None:
    secret = guarded.key("one-at-a-time", Limits(streams=1))
    async with Client(guarded.target, api_key=secret) as client:
        for _ in range(3):
            async with client.generate("x", model="sim", max_tokens=10_000) as answer:
                await anext(answer)
                with pytest.raises(Overloaded, match="1 requests at a time"):
                    await client.complete("x", model="sim", max_tokens=1)


def test_tokens_are_counted_over_requests(guarded: Guarded) -> None:
    limits = Limits(tokens_per_second=1.0, token_burst=60)
    with guarded.client(guarded.key("thrifty", limits)) as client:
        client.complete("x", model="sim", max_tokens=50)
        with pytest.raises(Overloaded, match="1 tokens a second"):
            client.complete("x", model="sim", max_tokens=50)


async def test_nobody_cancels_another_tenants_request(guarded: Guarded) -> None:
    owner, stranger = guarded.key("owner"), guarded.key("stranger")
    async with Client(guarded.target, api_key=owner) as mine:
        answer = mine.generate("x", model="sim", max_tokens=10_000, request_id="shared-name")
        await anext(answer)
        metadata = {"authorization": f"Bearer {stranger}", TENANT: "owner"}
        for theirs in (
            Client(guarded.target, api_key=stranger),
            Client(guarded.target, metadata=metadata),
        ):
            async with theirs:
                with pytest.raises(UnknownRequest):
                    await theirs.cancel("shared-name")
        await anext(answer)
        await mine.cancel("shared-name")
        with pytest.raises(Cancelled):
            async for _ in answer:
                pass


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/openapi.json"])
def test_http_asks_for_the_same_keys(guarded: Guarded, path: str) -> None:
    status, told = http(guarded, path, None)
    assert status == 401
    assert told["error"]["code"] == "invalid_api_key"
    assert http(guarded, path, guarded.key("web"))[0] in (200, 405)


def test_http_counts_for_the_same_tenant(guarded: Guarded) -> None:
    secret = guarded.key("web-limited", Limits(requests_per_second=0.01, request_burst=1))
    with guarded.client(secret) as client:
        client.complete("x", model="sim", max_tokens=1)
    body = json.dumps({"model": "sim", "prompt": "x", "max_tokens": 1}).encode()
    status, told = http(guarded, "/v1/completions", secret, body)
    assert status == 429
    assert "requests a second" in told["error"]["message"]


def test_logs_hold_no_key(guarded: Guarded) -> None:
    secret = guarded.key("quiet")
    with guarded.client(secret[:-1] + "-") as client, pytest.raises(Unauthenticated):
        client.models()
    for name in ("gateway", "one"):
        assert secret.split("_", 2)[2][:20] not in guarded.parts.log(name)


def http(
    guarded: Guarded, path: str, key: str | None, body: bytes | None = None
) -> tuple[int, Any]:
    request = urllib.request.Request(guarded.http + path, data=body)
    request.add_header("content-type", "application/json")
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
