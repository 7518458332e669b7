"""`millstream top`: a deployment as NATS sees it, live in the terminal or once for scripts."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import ClassVar

from pydantic_settings import SettingsConfigDict
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from millstream.overview import Overview, Picture
from shared import subjects, wire
from shared.bus import Bus, BusOptions
from shared.errors import MillstreamError
from shared.settings import ProcessSettings

LOOK_EVERY = 0.5
CONNECT_LIMIT = 5.0
STATES = {"ready": "green", "loading": "yellow", "draining": "yellow"}


class TopSettings(ProcessSettings):
    """How to reach NATS; variables MILLSTREAM_NATS_* as every process."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_TOP_")
    role: ClassVar[str] = "watcher"


class Watcher:
    """Listens to a deployment without saying anything but "who are you?".

    Args:
        settings: How to reach NATS.
    """

    def __init__(self, settings: TopSettings) -> None:
        self._bus = Bus(BusOptions(settings.nats, "millstream-top", settings.nats_connect()))
        self.overview = Overview()
        for subject in (subjects.HEARTBEATS, subjects.ANNOUNCEMENTS, subjects.GATEWAY_BEATS):
            self._bus.listen(subject, self._hear)

    async def start(self) -> None:
        """Connect.

        Raises:
            TimeoutError: NATS is not there.
            nats.errors.Error: It refuses the credentials.
        """
        async with asyncio.timeout(CONNECT_LIMIT):
            await self._bus.start()
        self._bus.publish(subjects.ASK, b"")

    async def look(self) -> None:
        """Read what the streams hold."""
        for stream in (subjects.STREAM, subjects.RESUME_STREAM):
            try:
                answer = await self._bus.request(
                    f"$JS.API.STREAM.INFO.{stream}", b'{"subjects_filter": ">"}', 2.0
                )
                state = json.loads(answer)["state"]
            except (MillstreamError, TimeoutError, ValueError, KeyError) as error:
                self.overview.problems[stream] = repr(error)
                continue
            self.overview.problems.pop(stream, None)
            if stream == subjects.STREAM:
                self.overview.queues(state.get("subjects") or {})
            else:
                self.overview.resumes(int(state["last_seq"]), time.monotonic())

    def picture(self) -> Picture:
        """How it stands."""
        return self.overview.picture(time.monotonic())

    async def close(self) -> None:
        """Leave."""
        await self._bus.close()

    def _hear(self, _subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        try:
            frame = wire.decode(data)
        except wire.WireError as error:
            self.overview.problems["frames"] = str(error)
            return
        self.overview.hear(frame, time.monotonic())


async def watch(
    settings: TopSettings, show: Callable[[Picture], None], *, seconds: float | None = None
) -> None:
    """Show pictures until cancelled; or one, after having listened for some seconds.

    Raises:
        TimeoutError: NATS is not there.
        nats.errors.Error: It refuses the credentials.
    """
    watcher = Watcher(settings)
    try:
        await watcher.start()
        if seconds is not None:
            await asyncio.sleep(seconds)
            await watcher.look()
            show(watcher.picture())
            return
        while True:
            await watcher.look()
            show(watcher.picture())
            await asyncio.sleep(LOOK_EVERY)
    finally:
        await watcher.close()


def run_top(settings: TopSettings, *, once: bool, as_json: bool, seconds: float = 1.0) -> int:
    """Run the command; returns its exit code."""
    from nats.errors import Error as NatsError

    console = Console()
    try:
        if as_json:
            asyncio.run(watch(settings, _print_json, seconds=seconds if once else None))
        elif once:
            asyncio.run(watch(settings, lambda one: console.print(render(one)), seconds=seconds))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                asyncio.run(watch(settings, lambda one: live.update(render(one), refresh=True)))
    except KeyboardInterrupt:
        return 0
    except TimeoutError:
        print(f"no NATS answers within {CONNECT_LIMIT:g} s: see --nats", file=sys.stderr)
        return 1
    except NatsError as error:
        print(f"NATS: {error}", file=sys.stderr)
        return 1
    return 0


def render(picture: Picture) -> RenderableType:
    """A picture for the terminal."""
    parts: list[RenderableType] = [_head(picture)]
    models = _table("MODEL", "WORKERS", "RUNNING", "TOKENS/S", *map(str.upper, subjects.CLASSES))
    for model in picture.models:
        models.add_row(
            model.model,
            str(model.workers),
            f"{model.running}/{model.limit}",
            f"{model.tokens_per_second:,.0f}",
            *(str(model.queued[name] or "-") for name in subjects.CLASSES),
        )
    workers = _table("WORKER", "MODEL", "STATE", "ENGINE", "RUNNING", "WAITING", "KV", "TOKENS/S")
    for worker in picture.workers:
        workers.add_row(
            worker.worker,
            worker.model,
            Text(worker.state, STATES.get(worker.state, "red")),
            worker.engine,
            f"{worker.running}/{worker.limit}",
            str(worker.waiting or "-"),
            f"{worker.kv_used:.0%}",
            f"{worker.tokens_per_second:,.0f}",
        )
    parts += [Text(), models, Text(), workers]
    parts += [Text(problem, "red") for problem in picture.problems]
    return Group(*parts)


def _head(picture: Picture) -> Text:
    gateways = ", ".join(picture.gateways) or "none"
    recent = f" ({picture.recent_failovers} in the last minute)" if picture.recent_failovers else ""
    return Text(f"gateways: {gateways}   failovers: {picture.failovers}{recent}")


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        right = heading in ("WORKERS", "RUNNING", "WAITING", "KV", "TOKENS/S")
        right = right or heading.lower() in subjects.CLASSES
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    return table


def _print_json(picture: Picture) -> None:
    print(json.dumps(picture.as_json()), flush=True)
