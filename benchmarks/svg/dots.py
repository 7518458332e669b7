"""Every value a dot, the median a line, on a logarithmic axis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.svg import picture
from benchmarks.svg.picture import BOTTOM, COLORS, HEIGHT, LEFT, RIGHT, TOP, WIDTH

Values = Mapping[str, Mapping[str, Sequence[float]]]


def write(path: Path, title: str, values: Values) -> None:
    """Draw values.

    Args:
        path: The file.
        title: What is drawn, with its unit.
        values: By series (a color), then by group (a place on the axis); all above 0.
    """
    groups = list(dict.fromkeys(name for series in values.values() for name in series))
    every = [value for series in values.values() for found in series.values() for value in found]
    scale = _Scale(min(every), max(every))
    lines = [*scale.axis()]
    step = (WIDTH - LEFT - RIGHT) / len(groups)
    for place, group in enumerate(groups):
        middle = LEFT + (place + 0.5) * step
        lines.append(picture.below(middle, group))
        for number, series in enumerate(values.values()):
            at = middle + (number - (len(values) - 1) / 2) * step / (len(values) + 1)
            lines += _group(at, series.get(group, ()), COLORS[number % len(COLORS)], scale)
    for number, name in enumerate(values):
        at = WIDTH - RIGHT - 110 * (len(values) - number)
        color = COLORS[number % len(COLORS)]
        lines.append(f'<circle cx="{at}" cy="14" r="4" fill="{color}"/>')
        lines.append(f'<text x="{at + 10}" y="18">{escape(name)}</text>')
    picture.write(path, title, lines)


class _Scale:
    """Values to heights."""

    def __init__(self, least: float, most: float) -> None:
        self._low = math.log10(least) - 0.1
        self._high = math.log10(most) + 0.1

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def axis(self) -> Iterator[str]:
        for power in range(math.floor(self._low), math.ceil(self._high)):
            for digit in (1, 2, 5):
                value = digit * 10.0**power
                if self._low <= math.log10(value) <= self._high:
                    yield from picture.across(self.at(value), value)


def _group(at: float, found: Sequence[float], color: str, scale: _Scale) -> Iterator[str]:
    for value in found:
        yield (
            f'<circle cx="{at:.1f}" cy="{scale.at(value):.1f}" r="3" fill="{color}" '
            'fill-opacity="0.5"/>'
        )
    if found:
        y = scale.at(statistics.median(found))
        yield f'<path d="M{at - 14:.1f} {y:.1f}h28" stroke="{color}" stroke-width="2"/>'
