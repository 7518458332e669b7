"""`--reload`: a worker that starts anew when its code changes. For development.

The worker runs in a process of its own; requests that come while it restarts wait in the queue. A
function may change its signature: the new one takes the name over.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

GRACE = 3
"""Seconds that a worker gets to finish what runs before it is replaced."""


def run_reloading(argv: Sequence[str]) -> int:
    """Run a worker with these flags until interrupted; returns the exit code."""
    try:
        from watchfiles import PythonFilter, run_process
    except ImportError:
        print("error: --reload needs watchfiles: pip install 'millstream[apps]'", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "workers", *argv, "--no-reload", "--replace-signature"]
    command += ["--drain-grace", str(GRACE - 1)]
    folder = Path.cwd()
    print(f"watching {folder} for changes", file=sys.stderr, flush=True)
    run_process(
        folder,
        target=shlex.join(command),
        target_type="command",
        watch_filter=PythonFilter(),
        sigint_timeout=GRACE,
    )
    return 0
