"""Writes the tables of docs/operations.md from the code that they describe.

python -m tools.tables          writes them
python -m tools.tables --check  says whether they are current, and ends with 1 if not
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest.mock import Mock

from prometheus_client.core import Metric
from pydantic.fields import FieldInfo

from gateway.grpc.limits import ServerCounters
from gateway.metrics import Answers, GatewayMetrics
from gateway.router import Router
from gateway.settings import GatewaySettings
from shared.settings import COMMON, COMMON_PREFIX, ProcessSettings
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings

REPEATABLE = {"engine_args": "engine_arg"}
POSITIONAL = {"app"}
DOCUMENT = Path(__file__).parents[1] / "docs" / "operations.md"


def settings_of(cls: type[ProcessSettings], names: Iterable[str]) -> Iterator[str]:
    """A table of some settings of a process."""
    yield "| flag | variable | default | |"
    yield "|---|---|---|---|"
    for name in names:
        field = cls.model_fields[name]
        prefix = COMMON_PREFIX if name in COMMON else cls.model_config.get("env_prefix", "")
        flag = "--" + REPEATABLE.get(name, name).replace("_", "-")
        if name in POSITIONAL:
            flag = name.upper()
        variable = f"{prefix}{name}".upper()
        yield f"| `{flag}` | `{variable}` | {_default(field)} | {_cell(field.description or '')} |"


def _default(field: FieldInfo) -> str:
    value = None if field.default_factory else field.default
    if isinstance(value, tuple):
        value = ",".join(value)
    return "" if value is None or value == "" else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def metrics(families: Iterable[Metric]) -> Iterator[str]:
    """A table of metrics, under the names that Prometheus gives them."""
    yield "| metric | type | labels | |"
    yield "|---|---|---|---|"
    for family in families:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ", ".join(getattr(family, "_labelnames", ()))
        text = _cell(family.documentation)
        yield f"| `{family.name}{suffix}` | {family.type} | {labels} | {text} |"


def gateway_families() -> Iterable[Metric]:
    """What a gateway counts, its gRPC server's counters apart."""
    router = Router("gateway", Mock(), queue_seconds=1.0)
    found = GatewayMetrics(router, ServerCounters(), Answers()).collect()
    return [family for family in found if not family.name.startswith("millstream_gateway_grpc_")]


def worker_families() -> Iterable[Metric]:
    """What a worker counts."""
    return WorkerMetrics([]).collect()


def tables() -> dict[str, list[str]]:
    """All tables by the name of their place."""
    own = [name for name in ProcessSettings.model_fields if name not in COMMON]
    shared = [name for name in ProcessSettings.model_fields if name in COMMON]
    gateway = [name for name in GatewaySettings.model_fields if name not in COMMON]
    worker = [name for name in WorkerSettings.model_fields if name not in COMMON]
    return {
        "common settings": list(settings_of(ProcessSettings, shared)),
        "gateway settings": list(settings_of(GatewaySettings, _first(gateway, own))),
        "worker settings": list(settings_of(WorkerSettings, _first(worker, own))),
        "gateway metrics": list(metrics(gateway_families())),
        "worker metrics": list(metrics(worker_families())),
    }


def _first(names: list[str], last: list[str]) -> list[str]:
    """The names with those that every process has at the end."""
    return [name for name in names if name not in last] + last


def filled(document: str) -> str:
    """The document with its tables as they should be.

    Raises:
        ValueError: A place is missing.
    """
    for name, lines in tables().items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        start = document.index(begin) + len(begin)
        stop = document.index(end, start)
        document = document[:start] + "\n".join(lines) + "\n" + document[stop:]
    return document


def main() -> int:
    """Write or check; returns the exit code."""
    text = DOCUMENT.read_text()
    wanted = filled(text)
    if "--check" in sys.argv[1:]:
        if text != wanted:
            print("docs/operations.md is not current: python -m tools.tables", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
