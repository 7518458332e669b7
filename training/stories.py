"""Stories: a cast and a setting drawn from `words`, told along one of the plots."""

from dataclasses import dataclass
from random import Random

from training import words
from training.grammar import Character, Phrase, fill
from training.plots import PLOTS, Plot

OPENINGS = (
    "Once upon a time, there was {size:a} {kind} named {name}. {he:^} lived {home}.",
    "Once upon a time, {size:a} {kind} named {name} lived {home}.",
    "There once was {trait:a} {kind} whose name was {name}. {he:^} lived {home}.",
    "{name} was {trait:a} {kind} who lived {home}.",
    "Long ago, {trait:a} {kind} named {name} lived {home}.",
    "In a land far away, there lived {size:a} {kind}. {his:^} name was {name}.",
    "{home:^} lived {trait:a} {kind} named {name}.",
    "This is the story of {name}, {trait:a} {kind} who lived {home}.",
)
CHARACTERS = (
    "",
    "{name} had many friends, because {he} was so {trait2}.",
    "Everyone said that {name} was very {trait2}.",
    "{name} loved the {place} more than any other place.",
    "{he:^} lived there with {his} {relative}.",
)
ENDINGS = (
    "{name} went home and was {glad}.",
    "It was a day that {name} never forgot.",
    "That evening, {name} told {his} {relative} all about it.",
    "And they lived happily ever after.",
    "And that is how the story ends.",
    "",
)
MORALS = ("{moral}", "{name} had learned something: {moral_low}", "So remember: {moral_low}", "")
TITLES = ("{name} and {f_name}", "{name} the {kind:^}", "The Story of {name}")


@dataclass(frozen=True, slots=True)
class Story:
    """A told story, what a request may call it, and who is in it."""

    text: str
    title: str
    topics: tuple[str, ...]
    hero: Character
    friend: Character
    home: str | None  # where the hero lives, if the text says so


def character(rng: Random, taken: frozenset[str] = frozenset()) -> Character:
    """Return a girl, a boy or an animal whose name is not in `taken`."""
    role = rng.choice(("girl", "boy", "creature"))
    if role == "creature":
        names, kind, pronoun = (
            words.CREATURE_NAMES,
            rng.choice(words.CREATURES),
            rng.choice(("he", "she")),
        )
    elif role == "girl":
        names, kind, pronoun = words.GIRLS, "girl", "she"
    else:
        names, kind, pronoun = words.BOYS, "boy", "he"
    name = rng.choice([name for name in names if name not in taken])
    return Character(name, kind, pronoun)


def setting(rng: Random, hero: Character, friend: Character) -> dict[str, Phrase]:
    """Return every slot that a plot may use, drawn afresh."""
    trait, trait2 = rng.sample(words.TRAITS, 2)
    colour, colour2 = rng.sample(words.COLOURS, 2)
    worker, worker_is = rng.choice(words.WORKERS)
    skill, skilling = rng.choice(words.SKILLS)
    seed, seed_look = rng.choice(words.SEEDS)
    drawn = {
        "trait": trait, "trait2": trait2, "colour": colour, "colour2": colour2,
        "worker": worker, "skill": skill, "skilling": skilling,
        "seed": seed, "seed_look": seed_look,
        "w_he": worker_is, "w_him": "him" if worker_is == "he" else "her",
        "size": rng.choice(words.SIZES), "home": rng.choice(words.HOMES),
        "place": rng.choice(words.PLACES), "indoor": rng.choice(words.INDOORS),
        "outdoor": rng.choice(words.OUTDOORS), "thing": rng.choice(words.TOYS),
        "treasure": rng.choice(words.TREASURES), "food": rng.choice(words.FOODS),
        "stray": rng.choice(words.STRAYS), "gift": rng.choice(words.GIFTS),
        "light": rng.choice(words.NIGHT_LIGHTS), "machine": rng.choice(words.MACHINES),
        "relative": rng.choice(words.RELATIVES), "day": rng.choice(words.DAYS),
        "glad": rng.choice(words.GLAD), "sad": rng.choice(words.SAD),
        "number": rng.choice(("three", "four", "five", "six", "seven", "ten")),
    }  # fmt: skip
    slots = {slot: Phrase(word) for slot, word in drawn.items()}
    return slots | hero.slots("") | friend.slots("f_")


def chapter(rng: Random, plot: Plot, slots: dict[str, Phrase], *, short: bool) -> list[str]:
    """Return the sentences of one plot; a short one leaves out what it can."""
    parts = []
    for number, beat in enumerate(plot.beats):
        if short and beat[0] == "":
            continue
        parts.append(fill(rng, beat, slots))
        if number == 0 and not short and rng.random() < 0.4:
            parts.append(rng.choice(words.WEATHER))
    return parts


def tell(rng: Random, *, chapters: int = 1, short: bool = False) -> Story:
    """Return a new story; with more chapters, the same hero meets a new friend in each."""
    hero = character(rng)
    friend = character(rng, frozenset({hero.name}))
    first, *others = rng.sample(PLOTS, chapters)
    slots = setting(rng, hero, friend)

    opening = rng.choice(OPENINGS)
    parts = [opening.format_map(slots)]
    if not short:
        parts.append(fill(rng, CHARACTERS, slots))
    parts += chapter(rng, first, slots, short=short)
    met = {hero.name, friend.name}
    last, last_slots = first, slots
    for last in others:
        another = character(rng, frozenset(met))
        met.add(another.name)
        last_slots = setting(rng, hero, another)
        last_slots["relative"] = slots["relative"]
        last_slots["day"] = Phrase(rng.choice(words.LATER))
        sentences = chapter(rng, last, last_slots, short=short)
        parts[-1] += "\n\n" + sentences[0]
        parts += sentences[1:]

    moral = fill(rng, last.moral, last_slots)
    last_slots["moral"] = Phrase(moral)
    last_slots["moral_low"] = Phrase(moral[0].lower() + moral[1:])
    parts += [fill(rng, ENDINGS, last_slots), fill(rng, MORALS, last_slots)]

    described = "{trait:a} {kind}" if "{trait" in opening else "{kind:a}"
    hero_topics = (described, "{kind:a}", "{kind:a} named {name}", "{name}", "{name} and {f_name}")
    return Story(
        text=" ".join(part for part in parts if part),
        title=fill(rng, TITLES, slots),
        topics=tuple(topic.format_map(slots) for topic in (*first.topics, *hero_topics)),
        hero=hero,
        friend=friend,
        home=str(slots["home"]) if "{home" in opening else None,
    )
