"""Lines over a linear axis, the values on a logarithmic one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.svg import picture
from benchmarks.svg.picture import BOTTOM, COLORS, HEIGHT, LEFT, RIGHT, TOP, WIDTH

Points = Sequence[tuple[float, float]]


def write(path: Path, title: str, series: Mapping[str, Points], *, limit: float) -> None:
    """Draw lines.

    Args:
        path: The file.
        title: What is drawn, with its units.
        series: Points by name; all values above 0.
        limit: A value to mark; what is far beyond it is cut off.
    """
    top = limit * 4
    low = min(y for points in series.values() for _, y in points) / 1.3
    widest = max(x for points in series.values() for x, _ in points)

    def at(x: float, y: float) -> tuple[float, float]:
        share = math.log(min(y, top) / low) / math.log(top / low)
        height = HEIGHT - TOP - BOTTOM
        return LEFT + x / widest * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * height

    parts: list[str] = []
    for value in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        if low <= value <= top:
            _, y = at(0, value)
            parts += picture.across(y, value, dashed=value == limit)
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, _ = at(share * widest, low)
        anchor = "end" if share == 1 else "middle"
        parts.append(picture.below(x, f"{share * widest:,.0f}", anchor))
    for number, (name, points) in enumerate(series.items()):
        color = COLORS[number]
        path_ = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<path d="M{path_}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(
            f'<text x="{LEFT + 8}" y="{TOP + 14 + 16 * number}" style="fill:{color}">'
            f"{escape(name)}</text>"
        )
    picture.write(path, title, parts)
