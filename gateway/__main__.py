"""`python -m gateway` runs one gateway."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gateway.settings import GatewaySettings
from shared import flags, telemetry


def main(argv: Sequence[str] | None = None, prog: str = "python -m gateway") -> int:
    """Read the settings, set up logging, run until told to stop; returns the exit code."""
    settings = flags.parse(
        GatewaySettings,
        argv,
        prog=prog,
        description="A gRPC gateway: takes requests and streams what workers answer.",
    )
    telemetry.configure(
        settings.log_level, settings.log_format, service="gateway", name=settings.name
    )
    if settings.processes > 1:
        from gateway.processes import Processes

        return Processes(settings).serve()
    from gateway.app import run  # After the settings: a typo should not wait for imports.

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
