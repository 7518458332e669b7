"""One gateway as several processes that share its ports (SO_REUSEPORT): Python uses one core each.

Each is a gateway of its own to workers and to the others, with its own id, connections and limits;
the kernel deals out the clients' connections. The parent only starts them, starts again one that
dies, and passes a signal on.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import structlog

from gateway.settings import GatewaySettings
from shared import telemetry
from shared.processes import dies_with_parent
from shared.ready import say_ready

log = structlog.get_logger(__name__)

_SPAWN = get_context("spawn")

RESTART_PAUSE = 1.0


class Processes:
    """The processes of one gateway.

    Args:
        settings: Of the gateway; number `n` of `processes` is named `<name>-<n>` and serves its
            metrics on the n-th port from `metrics_port` on.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._running: dict[int, SpawnProcess] = {}
        self._starting: dict[int, Connection] = {}
        self._ready: dict[int, str] = {}
        self._proven: set[int] = set()
        self._codes: list[int] = []
        self._stopping = False

    def serve(self) -> int:
        """Run them until told to stop; returns the highest exit code."""
        with ExitStack() as held:
            self._settings = _with_ports(self._settings, held)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            for place in range(self._settings.processes):
                self._start(place)
            while self._running:
                sentinels = [process.sentinel for process in self._running.values()]
                wait([*sentinels, *self._starting.values()])
                for place in list(self._starting):
                    self._hear(place)
                for place, process in list(self._running.items()):
                    if process.exitcode is not None:
                        self._ended(place, process.exitcode)
        return max(self._codes, default=0)

    def _start(self, place: int) -> None:
        if self._stopping:
            return
        settings = self._settings
        metrics = settings.metrics_port
        own = settings.model_copy(
            update={
                "name": f"{settings.name}-{place}",
                "metrics_port": metrics + place if metrics else metrics,
            }
        )
        heard, said = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_serve, args=(own, said, os.getpid()))
        process.start()
        said.close()
        self._running[place] = process
        self._starting[place] = heard
        self._tell(process)

    def _hear(self, place: int) -> None:
        """Take a process's word that it is ready; the last one's is everybody's."""
        connection = self._starting[place]
        if not connection.poll():
            return
        del self._starting[place]
        try:
            self._ready[place] = connection.recv()
        except EOFError:
            return  # It ended before.
        self._proven.add(place)
        file = self._settings.ready_file
        if file is not None and len(self._ready) == self._settings.processes:
            say_ready(file, self._ready[place])

    def _ended(self, place: int, code: int) -> None:
        del self._running[place]
        if self._stopping:
            # One that could not listen to signals yet dies of them, as it was told to.
            told = code in (-signal.SIGTERM, -signal.SIGINT)
            self._codes.append(0 if told else abs(code))
        elif place in self._proven:
            log.error("gateway_process_died", process=place, code=code)
            if self._ready.pop(place, None) is None:
                time.sleep(RESTART_PAUSE)  # It was not even ready: no haste.
            self._start(place)
        else:  # It cannot start: neither will it the next time.
            self._codes.append(abs(code))
            self._stop()

    def _tell(self, process: SpawnProcess) -> None:
        """Stop a process for which the signal came while it was being started."""
        if self._stopping:
            process.terminate()

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        for process in self._running.values():
            process.terminate()


def _with_ports(settings: GatewaySettings, held: ExitStack) -> GatewaySettings:
    """Settings with real port numbers, which bound sockets keep for the processes to come."""
    found = {"grpc_port": _port(settings.grpc_host, settings.grpc_port, held)}
    if settings.http_port is not None:
        found["http_port"] = _port(settings.http_host, settings.http_port, held)
    return settings.model_copy(update=found)


def _port(host: str, port: int, held: ExitStack) -> int:
    if port:
        return port
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    reserved = held.enter_context(socket.socket(family, kind))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(address)
    return int(reserved.getsockname()[1])


def _serve(settings: GatewaySettings, said: Connection, parent: int) -> None:
    """The life of one process."""
    arrange: Callable[[], None] | None = dies_with_parent(parent)
    if arrange is not None:
        arrange()
    telemetry.configure(
        settings.log_level, settings.log_format, service="gateway", name=settings.name
    )
    from gateway.app import run

    raise SystemExit(run(settings, partial(_say, said)))


def _say(said: Connection, text: str) -> None:
    said.send(text)
    said.close()
