"""The functions of `benchmarks.apps` in BlazeRPC. Runs in BlazeRPC's own venv.

python -m benchmarks.servers.blaze_app PORT_FILE BATCHING
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop
from blazerpc import BlazeApp  # type: ignore[import-not-found]

from benchmarks.servers import functions
from benchmarks.servers.blaze import serve


def main() -> None:
    """Read the arguments and serve."""
    port_file, batching = sys.argv[1:]
    app = BlazeApp("bench", enable_batching=batching == "1")
    app.model("words", streaming=True)(functions.words)
    app.model("burst", streaming=True)(functions.burst)
    app.model("echo")(functions.echo)
    app.model("nap")(functions.nap)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(app, Path(port_file)))


if __name__ == "__main__":
    main()
