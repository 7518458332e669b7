"""What plots have in common: colors, a frame with a title, lines across, names below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 36
COLORS = ("#2f6fb3", "#c2571a", "#3f8f4f")
STYLE = """
text { font: 12px sans-serif; fill: #333 }
.axis { stroke: #999; stroke-opacity: 0.4 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""


def write(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a picture of that title, which is drawn by its parts."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="{LEFT}" y="18">{escape(title)}</text>',
        *parts,
        "</svg>",
        "",
    ]
    path.write_text("\n".join(lines))


def across(y: float, value: float, *, dashed: bool = False) -> Iterator[str]:
    """A line at a height, and the value that it stands for."""
    dash = ' stroke-dasharray="4 3" stroke-width="2"' if dashed else ""
    yield f'<path class="axis"{dash} d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
    yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'


def below(x: float, name: str, anchor: str = "middle") -> str:
    """A name under the plot."""
    return f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{escape(name)}</text>'
