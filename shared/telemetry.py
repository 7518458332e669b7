"""Logging: structlog to stderr, as lines for people or as JSON, and the library logs with it.

What a request says is never logged: no prompt, no answer, only ids, counts and times.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.settings import LogFormat, LogLevel

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_QUIET = ("asyncio", "grpclib", "h2", "hpack", "nats", "urllib3", "transformers")
"""Libraries that are heard from their warnings on, unless the level is debug."""

_SECRET_KEYS = frozenset({"prompt", "messages", "text", "token_ids", "authorization", "password"})


def configure(level: LogLevel, log_format: LogFormat, *, service: str, name: str) -> None:
    """Set up logging of this process; `service` and `name` are on every JSON line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _drop_content,
    ]
    last: list[Processor]
    if log_format == "json":
        shared.append(_Identity(service, name))
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The default formatter shows local variables, and with them prompts.
        plain = structlog.dev.plain_traceback
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=plain, pad_event_to=32
            )
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for library in _QUIET:
        logging.getLogger(library).setLevel(max(_LEVELS[level], logging.WARNING))


class _Identity:
    """Says which process speaks."""

    def __init__(self, service: str, name: str) -> None:
        self._service = service
        self._name = name

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = self._service
        event["name"] = self._name
        return event


def _drop_content(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "***"
    return event


def rare(count: int) -> bool:
    """Whether the `count`-th of many equal events is worth a line in the log: 1, 2, 4, 8 and so on.

    Else whoever sends garbage fills the disk.
    """
    return count & (count - 1) == 0
