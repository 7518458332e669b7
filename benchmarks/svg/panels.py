"""A few line plots side by side, logarithmic from left to right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.svg.picture import COLORS

WIDTH, HEIGHT = 300, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 30, 40


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot.

    Attributes:
        title: Above it.
        across: What the x axis counts.
        lines: Names with their points.
    """

    title: str
    across: str
    lines: dict[str, list[tuple[float, float]]]


def svg(panels: Sequence[Panel]) -> str:
    """All panels in one picture; the y axes begin at 0 and count microseconds."""
    drawn = "".join(_panel(panel, WIDTH * place) for place, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
        f"{drawn}</svg>\n"
    )


def _panel(panel: Panel, left: int) -> str:
    points = [point for line in panel.lines.values() for point in line]
    low, high = (bound(math.log(x) for x, _ in points) for bound in (min, max))
    most = max(y for _, y in points) * 1.15
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(x: float) -> float:
        return left + LEFT + wide * (math.log(x) - low) / ((high - low) or 1.0)

    def up(y: float) -> float:
        return TOP + tall * (1 - y / most)

    parts = [_text(left + WIDTH / 2, 16, panel.title, "middle")]
    parts.append(_text(left + LEFT + wide / 2, HEIGHT - 6, panel.across, "middle"))
    for share in (0.0, 0.5, 1.0):
        y = up(most * share)
        parts.append(
            f'<line x1="{left + LEFT}" y1="{y:.1f}" x2="{left + WIDTH - RIGHT}" y2="{y:.1f}" '
            'stroke="#ddd"/>'
        )
        parts.append(_text(left + LEFT - 4, y + 3, f"{most * share:.1f}", "end"))
    parts += [
        _text(across(x), HEIGHT - BOTTOM + 14, f"{x:g}", "middle")
        for x in sorted({x for x, _ in points})
    ]
    for place, (name, line) in enumerate(panel.lines.items()):
        color = COLORS[place % len(COLORS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        x, y = line[-1]
        parts.append(_text(across(x), up(y) - 6, name, "end", color))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str, color: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{text}</text>'
