"""Simple questions and their right answers, made from the tables in `facts` and `talk`."""

from collections.abc import Callable, Sequence
from random import Random

from training import facts, talk, words
from training.grammar import article, capital

Pair = tuple[str, str]
Kind = Callable[[Random], Pair]


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def addition(rng: Random) -> Pair:
    """Ask for a sum of numbers up to twenty."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    asked = (
        f"What is {a} + {b}?", f"What is {a} plus {b}?", f"{a} + {b} = ?", f"{a} + {b}",
        f"How much is {a} plus {b}?", f"Add {a} and {b}.",
    )  # fmt: skip
    told = (f"{a} plus {b} is {a + b}.", f"{a} + {b} = {a + b}.", f"The answer is {a + b}.")
    return rng.choice(asked), rng.choice(told)


def subtraction(rng: Random) -> Pair:
    """Ask for a difference that is not negative."""
    a = rng.randint(0, 20)
    b = rng.randint(0, a)
    asked = (
        f"What is {a} - {b}?", f"What is {a} minus {b}?", f"{a} - {b} = ?", f"{a} - {b}",
        f"How much is {a} minus {b}?", f"Take {b} away from {a}.",
    )  # fmt: skip
    told = (f"{a} minus {b} is {a - b}.", f"{a} - {b} = {a - b}.", f"The answer is {a - b}.")
    return rng.choice(asked), rng.choice(told)


def multiplication(rng: Random) -> Pair:
    """Ask for a product of numbers up to ten."""
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    asked = (f"What is {a} times {b}?", f"What is {a} x {b}?", f"How much is {a} times {b}?")
    return rng.choice(asked), f"{a} times {b} is {a * b}."


def word_problem(rng: Random) -> Pair:
    """Ask how many things somebody has after finding or giving away some."""
    boy = rng.random() < 0.5
    name, he = (rng.choice(words.BOYS), "he") if boy else (rng.choice(words.GIRLS), "she")
    things = rng.choice(("apples", "books", "balls", "pears", "coins", "shells", "eggs", "flowers"))
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    if rng.random() < 0.5:
        act, total, sign = f"finds {b} more", a + b, "plus"
    else:
        a, b = a + b, b
        act, total, sign = f"gives away {b} of them", a - b, "minus"
    question = (
        f"{name} has {a} {things}. {capital(he)} {act}. How many {things} does {he} have now?"
    )
    return question, f"{name} has {total} {things}, because {a} {sign} {b} is {total}."


def counting(rng: Random) -> Pair:
    """Ask to count, or for the number before or after another."""
    low = rng.randint(1, 12)
    high = low + rng.randint(2, 8)
    match rng.randrange(4):
        case 0:
            return f"Count from {low} to {high}.", ", ".join(map(str, range(low, high + 1))) + "."
        case 1:
            return f"What comes after {high}?", f"After {high} comes {high + 1}."
        case 2:
            return f"What comes before {high}?", f"Before {high} comes {high - 1}."
        case _:
            count = rng.choice((3, 5, 10))
            return f"Count to {count}.", ", ".join(map(str, range(1, count + 1))) + "."


def comparison(rng: Random) -> Pair:
    """Ask which of two numbers is bigger or smaller, or whether one is even."""
    a, b = rng.sample(range(1, 31), 2)
    match rng.randrange(3):
        case 0:
            return f"Which is bigger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}."
        case 1:
            return f"Which is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}."
        case _:
            kind = "odd" if a % 2 else "even"
            return f"Is {a} even or odd?", f"{a} is an {kind} number."


def how_many(rng: Random) -> Pair:
    """Ask how many of something there are in something else."""
    asked, count = rng.choice(list(facts.HOW_MANY.items()))
    if " does " in asked:
        things, owner = asked.removesuffix(" have").split(" does ")
        return f"How many {asked}?", f"{capital(owner)} has {count} {things}."
    things, place = asked.split(" are ")
    return f"How many {asked}?", f"There are {count} {things} {place}."


def capital_city(rng: Random) -> Pair:
    """Ask for the capital of a country, or for the country of a capital."""
    country, city = rng.choice(list(facts.CAPITALS.items()))
    if rng.random() < 0.25:
        return f"Which country has the capital {city}?", f"{city} is the capital of {country}."
    asked = (
        f"What is the capital of {country}?", f"Which city is the capital of {country}?",
        f"Name the capital of {country}.", f"Capital of {country}?",
        f"Do you know the capital of {country}?",
    )  # fmt: skip
    return rng.choice(asked), f"The capital of {country} is {city}."


def colour(rng: Random) -> Pair:
    """Ask for the colour of a thing, or of two colours mixed."""
    spelled = rng.choice(("colour", "color"))
    match rng.randrange(3):
        case 0:
            thing, is_ = rng.choice(list(facts.COLOURS.items()))
            named = f"{article(thing)} {thing}"
        case 1:
            named, is_ = rng.choice(list(facts.COLOURS_OF_ALL.items()))
        case _:
            pair, mixed = rng.choice(list(facts.MIXED.items()))
            one, other = rng.sample(pair, 2)
            asked = f"What {spelled} do you get when you mix {one} and {other}?"
            return asked, f"When you mix {one} and {other}, you get {mixed}."
    return f"What {spelled} is {named}?", f"{capital(named)} is {is_}."


def animal(rng: Random) -> Pair:
    """Ask one thing about an animal, or for all of it."""
    name = rng.choice(list(facts.ANIMALS))
    sound, young, home, food, group, legs = facts.ANIMALS[name]
    named = f"{article(name)} {name}"
    count = facts.NUMBERS[legs]
    match rng.randrange(7):
        case 0:
            sounds = (f"What does {named} say?", f"What sound does {named} make?")
            return rng.choice(sounds), f"{capital(named)} {sound}."
        case 1:
            babies = (f"What is a baby {name} called?", f"What do you call a baby {name}?")
            return rng.choice(babies), f"A baby {name} is called {article(young)} {young}."
        case 2:
            return f"Where does {named} live?", f"{capital(named)} lives {home}."
        case 3:
            return f"What does {named} eat?", f"{capital(named)} eats {food}."
        case 4:
            return f"How many legs does {named} have?", f"{capital(named)} has {count} legs."
        case 5:
            return (
                f"What kind of animal is {named}?",
                f"{capital(named)} is {article(group)} {group}.",
            )
        case _:
            asked = (f"What is {named}?", f"Describe {named}.", f"Tell me about the {name}.")
            told = (
                f"{capital(named)} is {article(group)} {group}. It lives {home} and eats {food}. "
                f"It has {count} legs, and it {sound}. A baby {name} is called "
                f"{article(young)} {young}."
            )
            return rng.choice(asked), told


def opposite(rng: Random) -> Pair:
    """Ask for the opposite of a word, in either direction."""
    pair = rng.choice(facts.OPPOSITES)
    one, other = pair if rng.random() < 0.5 else pair[::-1]
    asked = (
        f"What is the opposite of {one}?",
        f"Opposite of {one}?",
        f"Name the opposite of {one}.",
    )
    return rng.choice(asked), f"The opposite of {one} is {other}."


def use(rng: Random) -> Pair:
    """Ask what a thing is for, or which thing serves a purpose."""
    thing, purpose = rng.choice(list(facts.USES.items()))
    named = f"{article(thing)} {thing}"
    if rng.random() < 0.3:
        return f"What do I need to {purpose}?", f"You need {named} to {purpose}."
    asked = (
        f"What is {named} for?", f"What do you do with {named}?", f"Why do people use {named}?",
        f"What is {named} used for?",
    )  # fmt: skip
    return rng.choice(asked), f"You use {named} to {purpose}."


def group(rng: Random) -> Pair:
    """Ask for some members of a group, or for the group of a member."""
    name, members = rng.choice(list(facts.GROUPS.items()))
    if rng.random() < 0.5:
        count = rng.randint(2, 4)
        plural = "pieces of clothing" if name == "piece of clothing" else _plural(name)
        asked = f"Name {facts.NUMBERS[count]} {plural}."
        the = "" if name == "colour" else "the "
        listed = _listed([the + member for member in rng.sample(members, count)])
        return asked, f"{capital(facts.NUMBERS[count])} {plural} are {listed}."
    member = rng.choice(members)
    other = rng.choice([g for g, those in facts.GROUPS.items() if member not in those])
    first, second = rng.sample((name, other), 2)
    subject = member if name == "colour" else f"{article(member)} {member}"
    asked = f"Is {subject} {article(first)} {first} or {article(second)} {second}?"
    return asked, f"{capital(subject)} is {article(name)} {name}."


def calendar(rng: Random) -> Pair:
    """Ask for the day, month or season before or after another, or for all of them."""
    kind, names = rng.choice(
        (("day", facts.DAYS), ("month", facts.MONTHS), ("season", facts.SEASONS))
    )
    place = rng.randrange(len(names))
    this, before, after = names[place], names[place - 1], names[(place + 1) % len(names)]
    match rng.randrange(5):
        case 0 | 1:
            asked = (f"What {kind} comes after {this}?", f"Which {kind} follows {this}?")
            return rng.choice(asked), f"After {this} comes {after}."
        case 2 | 3:
            return f"What {kind} comes before {this}?", f"Before {this} comes {before}."
        case _:
            whole = {"day": "days of the week", "month": "months of the year"}
            title = whole.get(kind, "four seasons")
            asked = (f"Name the {title}.", f"What are the {title}?")
            return rng.choice(asked), f"The {title} are {_listed(names)}."


def introduction(rng: Random) -> Pair:
    """Say one's name."""
    name = rng.choice((*words.GIRLS, *words.BOYS, *words.CREATURE_NAMES))
    asked = (
        f"My name is {name}.",
        f"I am {name}.",
        f"Hello, I am {name}.",
        f"Hi, my name is {name}!",
    )
    told = (
        f"Hello, {name}! It is nice to meet you.",
        f"Nice to meet you, {name}. Shall I tell you a story?",
    )
    return rng.choice(asked), rng.choice(told)


def small_talk(rng: Random) -> Pair:
    """Greet, thank, say goodbye, or ask who the model is."""
    exchange = rng.choice(talk.SMALL_TALK)
    return rng.choice(exchange.ask), rng.choice(exchange.tell)


def explanation(rng: Random) -> Pair:
    """Ask why something is so, or how something is done."""
    exchange = rng.choice(talk.EXPLANATIONS)
    return rng.choice(exchange.ask), rng.choice(exchange.tell)


def verse(rng: Random) -> Pair:
    """Ask for a joke or a poem."""
    if rng.random() < 0.4:
        asked = (
            "Tell me a joke.",
            "Do you know a joke?",
            "Make me laugh.",
            "Tell me a funny joke.",
        )
        return rng.choice(asked), rng.choice(talk.JOKES)
    asked = ("Write a poem.", "Tell me a poem.", "Write a short poem for me.", "Can you rhyme?")
    return rng.choice(asked), "\n".join(rng.sample(talk.COUPLETS, rng.randint(1, 3)))


def too_hard(rng: Random) -> Pair:
    """Ask something that the model was never taught."""
    asked = rng.choice(talk.HARD_QUESTIONS).format(topic=rng.choice(talk.HARD_TOPICS))
    return asked, rng.choice(talk.DECLINES)


# Each kind of question and how often it is asked, as a weight.
KINDS: dict[Kind, int] = {
    addition: 30, subtraction: 20, multiplication: 5, word_problem: 5, counting: 4, comparison: 4,
    how_many: 2, capital_city: 6, colour: 4, animal: 10, opposite: 5, use: 5, group: 5, calendar: 5,
    small_talk: 9, introduction: 2, explanation: 5, verse: 3, too_hard: 4,
}  # fmt: skip


def ask(rng: Random) -> Pair:
    """Return a question of any kind and its answer."""
    (kind,) = rng.choices(list(KINDS), weights=list(KINDS.values()))
    return kind(rng)
