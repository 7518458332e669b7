"""`make bench`: what a token costs and how soon the first one comes, beside the competitors."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks import report, rows
from benchmarks.accounting import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")


def main() -> int:
    """Measure, print, save; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each")
    parser.add_argument("--quick", action="store_true", help="one short repetition: a smoke test")
    parser.add_argument("--output", type=Path, default=RESULTS / "bench.json", help="the JSON")
    parser.add_argument("--write", action="store_true", help="put the table into README and docs")
    options = parser.parse_args()
    repetitions = 1 if options.quick else options.repetitions
    console = Console(width=None if sys.stdout.isatty() else 180)
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as scratch:
        found = rows.run(Path(scratch), repetitions, options.quick, console.log)
    result = report.document(found.rows(), repetitions, "make bench")
    report.save(result, options.output)
    report.show(result, console)
    if options.write:
        text = report.markdown(result)
        written = [path for path in PAGES if report.write_between_markers(path, text)]
        console.print("written into", ", ".join(str(path.relative_to(ROOT)) for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
