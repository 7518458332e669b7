"""What the exit codes of gateways and workers mean: docs/operations.md lists them for people."""

from __future__ import annotations

EXIT_OK = 0
"""Drained, as it was told to."""
EXIT_SETTINGS = 2
"""A setting is not allowed."""
EXIT_MODEL = 3
"""The model cannot be loaded."""
EXIT_ENGINE = 4
"""The engine died."""
EXIT_PORT = 5
"""A port is taken, or may not be listened on."""
EXIT_ACCESS = 6
"""Keys or certificates cannot be read."""
