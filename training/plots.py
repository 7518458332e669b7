"""What can happen in a story: the plots of `plots.toml`, read once."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

Beat = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """One course of events: a choice of sentences for each beat, and what a request calls it."""

    name: str
    topics: Beat
    beats: tuple[Beat, ...]
    moral: Beat


def read(path: Path) -> tuple[Plot, ...]:
    """Return the plots of a TOML file, in its order."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Plot(
            name=plot["name"],
            topics=tuple(plot["topics"]),
            beats=tuple(tuple(beat) for beat in plot["beats"]),
            moral=tuple(plot["moral"]),
        )
        for plot in document["plot"]
    )


PLOTS = read(Path(__file__).with_name("plots.toml"))
