"""`python -m workers` runs one worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from shared import flags, telemetry
from workers.settings import WorkerSettings


def main(argv: Sequence[str] | None = None, prog: str = "python -m workers") -> int:
    """Read the settings, set up logging, run until told to stop; returns the exit code."""
    settings = flags.parse(
        WorkerSettings,
        argv,
        prog=prog,
        description="A worker: loads a model and pulls requests from NATS.",
    )
    if settings.reload:
        from workers.reload import run_reloading

        return run_reloading(sys.argv[1:] if argv is None else argv)
    telemetry.configure(
        settings.log_level, settings.log_format, service="worker", name=settings.name
    )
    from workers.host import run  # After the settings: a typo should not wait for imports.

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
