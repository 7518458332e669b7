"""Fixed talk, read once from `talk.toml`: greetings, explanations, jokes, rhymes, refusals."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Exchange:
    """Questions that mean the same, and answers that fit any of them."""

    ask: tuple[str, ...]
    tell: tuple[str, ...]


_TALK = tomllib.loads(Path(__file__).with_name("talk.toml").read_text(encoding="utf-8"))


def _strings(key: str) -> tuple[str, ...]:
    return tuple(_TALK[key])


def _exchanges(key: str) -> tuple[Exchange, ...]:
    return tuple(Exchange(tuple(e["ask"]), tuple(e["tell"])) for e in _TALK[key])


SMALL_TALK = _exchanges("small_talk")
EXPLANATIONS = _exchanges("explanations")
JOKES = _strings("jokes")
COUPLETS = _strings("couplets")
HARD_QUESTIONS = _strings("hard_questions")
HARD_TOPICS = _strings("hard_topics")
DECLINES = _strings("declines")
