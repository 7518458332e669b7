"""The typed gRPC services: what workers announce is served, listed and healthy without a restart.

A version has a service of its own, and the default version of a name has an alias beside it. A
service that two functions lay claim to is the one's who had it first; the other is served by
`Predict` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.const import Cardinality, Handler

from gateway.catalog import Catalog, Entry, Function
from gateway.health import HealthService
from gateway.reflection import ReflectionService
from gateway.server import GrpcServer
from gateway.typed.calls import Calls
from gateway.typed.options import options_of
from shared import typed
from shared.errors import UnknownModel, Unsupported
from shared.typed import Typed

if TYPE_CHECKING:
    from grpclib.server import Stream

log = structlog.get_logger(__name__)

PREFIX = "/millstream.models."


class TypedMethod:
    """The one method of a typed service: raw bytes in, checked here, and raw bytes out.

    Args:
        calls: Opens calls.
        name: The function's served name.
        path: `/package.Service/Method`.
        streaming: Whether it streams.
    """

    def __init__(self, calls: Calls, name: str, path: str, streaming: bool) -> None:
        self._calls = calls
        self._name = name
        self._path = path
        self._streaming = streaming

    def __mapping__(self) -> dict[str, Handler]:
        """The method, for the server."""
        kind = Cardinality.UNARY_STREAM if self._streaming else Cardinality.UNARY_UNARY
        serve = self._stream if self._streaming else self._reply
        return {self._path: Handler(serve, kind, bytes, bytes)}

    async def _stream(self, rpc: Stream[Any, Any]) -> None:
        function = self._calls.function(self._name, streaming=True)
        message = await _message(rpc, function)
        await self._calls.stream(rpc, function, message, options_of(rpc))

    async def _reply(self, rpc: Stream[Any, Any]) -> None:
        function = self._calls.function(self._name, streaming=False)
        message = await _message(rpc, function)
        call = self._calls.begin(function, message, options_of(rpc))
        await self._calls.reply(rpc, call, None)


async def _message(rpc: Stream[Any, Any], function: Function) -> Any:
    """The client's one message, checked.

    Raises:
        InvalidRequest: It is malformed, or not what the function takes; names the parameter.
    """
    data = await rpc.recv_message()
    message = function.typed.parse(data or b"")
    function.typed.check(message)
    return message


@dataclass(frozen=True, slots=True)
class _Claim:
    """A service that a function would have.

    Attributes:
        service: Its full name.
        owner: The served name, or of an alias the name without a version.
        entry: The function.
        typed: Its messages.
        alias: Whether it is the one without a version.
    """

    service: str
    owner: str
    entry: Entry
    typed: Typed
    alias: bool


class TypedServices:
    """All of them.

    Args:
        calls: Opens calls.
        server: Serves them.
        reflection: Describes them.
        health: Says which can be called.
    """

    def __init__(
        self, calls: Calls, server: GrpcServer, reflection: ReflectionService, health: HealthService
    ) -> None:
        self._calls = calls
        self._server = server
        self._reflection = reflection
        self._health = health
        self._served: dict[str, tuple[_Claim, TypedMethod]] = {}
        self._refused: set[tuple[str, str]] = set()
        server.fall_back(self._unknown)

    def update(self, catalog: Catalog, up: bool) -> None:
        """Serve what the catalog has now, and nothing else.

        Args:
            catalog: The models, refreshed.
            up: Whether calls can be taken at all.
        """
        wanted = self._settle(catalog)
        for service in self._served.keys() - wanted.keys():
            self._remove(service)
        for service, claim in wanted.items():
            served = self._served.get(service)
            if served is None or served[0].typed is not claim.typed:
                self._add(claim)
            self._health.set(service, up and claim.entry.workers > 0)

    def service_of(self, name: str) -> str:
        """The full name of a function's typed service; "" where it has none."""
        for service, (claim, _) in self._served.items():
            if claim.owner == name and not claim.alias:
                return service
        return ""

    def _settle(self, catalog: Catalog) -> dict[str, _Claim]:
        """Who gets which service: a version its own, then the default versions the aliases."""
        won: dict[str, _Claim] = {}
        refused: set[tuple[str, str]] = set()
        for claims in (_versions(catalog), _aliases(catalog)):
            for claim in claims:
                if claim.alias and won.get(claim.typed.service, claim).typed is not claim.typed:
                    continue
                rival = won.setdefault(claim.service, claim)
                if rival is claim:
                    continue
                served = self._served.get(claim.service)
                if served is not None and served[0].owner == claim.owner:
                    won[claim.service], rival, claim = claim, claim, rival
                refused.add((claim.service, claim.owner))
                if (claim.service, claim.owner) not in self._refused:
                    log.error(
                        "service_clash", service=claim.service, model=claim.owner,
                        taken_by=rival.owner, reason="only Predict serves it",
                    )  # fmt: skip
        self._refused = refused
        return won

    def _add(self, claim: _Claim) -> None:
        former = self._served.get(claim.service)
        if former is not None:
            self._server.remove(former[1])
            self._reflection.remove([], [_files(former[0])[-1].name])
        path = claim.typed.alias_path if claim.alias else claim.typed.path
        method = TypedMethod(self._calls, claim.entry.name, path, claim.typed.signature.streaming)
        self._reflection.add(_files(claim), [claim.service])
        self._server.add(method)
        self._served[claim.service] = (claim, method)
        log.info("typed_service", service=claim.service, model=claim.entry.name)

    def _remove(self, service: str) -> None:
        claim, method = self._served.pop(service)
        self._server.remove(method)
        self._reflection.remove([service], [_files(claim)[-1].name])
        self._health.remove(service)
        log.info("typed_service_gone", service=service, model=claim.entry.name)

    def _unknown(self, path: str) -> Handler | None:
        """What answers a path of the typed services' that is not served."""
        if not path.startswith(PREFIX):
            return None
        return Handler(partial(self._refuse, path), Cardinality.UNARY_STREAM, bytes, bytes)

    async def _refuse(self, path: str, _rpc: Stream[Any, Any]) -> None:
        service, _, method = path[1:].rpartition("/")
        served = self._served.get(service)
        if served is not None:
            raise Unsupported(
                f"{service} has no method {method[:80]!r}: its method is {served[0].typed.method}"
            )
        raise UnknownModel(f"no worker serves {service[:200]!r}", field="model")


def _versions(catalog: Catalog) -> Iterator[_Claim]:
    for entry in catalog.known():
        if entry.typed is not None:
            yield _Claim(entry.typed.service, entry.name, entry, entry.typed, alias=False)


def _aliases(catalog: Catalog) -> Iterator[_Claim]:
    for name, entry in catalog.defaults():
        if entry.typed is not None:
            yield _Claim(entry.typed.alias, name, entry, entry.typed, alias=True)


def _files(claim: _Claim) -> list[FileDescriptorProto]:
    """What describes a service, its own file last."""
    if claim.alias:
        return [typed.alias_file(claim.typed.signature)]
    return claim.typed.files
