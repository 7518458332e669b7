"""The text that the bundled model learns from: repeatable, varied, well formed and right."""

import json
import re
from collections import Counter
from itertools import chain
from random import Random

import pytest

from training import facts, questions
from training.corpus import (
    ASSISTANT,
    BOS,
    CHAT_TEMPLATE,
    EOS,
    PAD,
    SYSTEM,
    USER,
    Document,
    Turn,
    documents,
)
from training.grammar import Character, Phrase, article
from training.plots import PLOTS
from training.stories import tell
from workers import bundled

SAMPLE = list(documents(3, 4000))
TEXTS = [turn.text for document in SAMPLE for turn in document.turns]
STORIES = [tell(Random(seed), chapters=1 + seed % 2) for seed in range(1500)]


def test_the_same_seed_gives_the_same_text() -> None:
    assert list(documents(5, 200)) == list(documents(5, 200))


def test_a_longer_corpus_starts_with_the_shorter_one() -> None:
    assert list(documents(5, 200))[:50] == list(documents(5, 50))


def test_another_seed_gives_other_text() -> None:
    assert list(documents(5, 50)) != list(documents(6, 50))


def test_stories_do_not_repeat() -> None:
    assert len({story.text for story in STORIES}) == len(STORIES)


def test_the_vocabulary_is_varied() -> None:
    words = Counter(chain.from_iterable(re.findall(r"[a-z]+", text.lower()) for text in TEXTS))
    assert sum(count >= 3 for count in words.values()) > 900


def test_every_plot_and_every_kind_of_question_is_told() -> None:
    for plot in PLOTS:
        openings = [re.escape(beat) for beat in plot.beats[-1] if beat]
        pattern = "|".join(re.sub(r"\\\{.*?\\\}", ".+?", opening) for opening in openings)
        assert any(re.search(pattern, story.text) for story in STORIES), plot.name
    assert all(kind(Random(1)) for kind in questions.KINDS)


@pytest.mark.parametrize(
    "pattern", [r"[{}<>|]", r"  ", r"\b[Aa] [aeio]\w", r"\b[Aa]n [^aeiouh]", r"\bNone\b"]
)
def test_no_text_has_a_slip(pattern: str) -> None:
    assert [text for text in TEXTS if re.search(pattern, text)] == []


def test_stories_are_whole_sentences() -> None:
    for story in STORIES:
        assert re.match(r"[A-Z]", story.text)
        assert re.search(r"[.!?]\"?$", story.text)
        assert not re.search(r"[.!?] [a-z]", story.text), story.text


def test_a_story_keeps_to_the_pronouns_of_its_characters() -> None:
    for story in STORIES:
        if story.hero.pronoun == story.friend.pronoun == "she" and "\n\n" not in story.text:
            people = r"\b(baker|farmer|gardener|sailor|miller|shopkeeper)\b"
            if not re.search(people, story.text):
                assert not re.search(r"\b(he|him|his|himself)\b", story.text), story.text


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("apple", "an"), ("red apple", "a"), ("hour", "an"), ("house", "a"), ("unicorn", "a")],
)
def test_articles_follow_the_sound(noun: str, expected: str) -> None:
    assert article(noun) == expected
    assert f"{Phrase(noun):a}" == f"{expected} {noun}"


def test_a_character_has_all_pronouns() -> None:
    slots = Character("Mia", "girl", "she").slots("f_")
    text = "{f_name} is {f_kind:a}. {f_he:^} likes {f_his} hat; it suits {f_him} {f_himself}."
    assert text.format_map(slots) == "Mia is a girl. She likes her hat; it suits her herself."


OPERATIONS = {
    "+": int.__add__, "plus": int.__add__, "-": int.__sub__, "minus": int.__sub__,
    "x": int.__mul__, "times": int.__mul__,
}  # fmt: skip


@pytest.mark.parametrize(
    "kind", [questions.addition, questions.subtraction, questions.multiplication]
)
def test_arithmetic_is_right(kind: questions.Kind) -> None:
    for seed in range(600):
        question, answer = kind(Random(seed))
        numbers = [int(number) for number in re.findall(r"\d+", question)]
        sign = re.search(r" (\+|-|plus|minus|times|x) ", question)
        if sign:
            expected = OPERATIONS[sign[1]](*numbers)
        elif question.startswith("Add"):
            expected = sum(numbers)
        else:
            assert question.startswith("Take"), question
            expected = numbers[1] - numbers[0]
        assert re.search(rf"\b{expected}\.$", answer), (question, answer)


def test_word_problems_are_right() -> None:
    for seed in range(300):
        question, answer = questions.word_problem(Random(seed))
        has, change = (int(number) for number in re.findall(r"\d+", question))
        expected = has - change if "gives" in question else has + change
        assert re.match(rf"\w+ has {expected} ", answer), (question, answer)
        assert answer.endswith(f"is {expected}.")


def test_counting_and_comparing_is_right() -> None:
    for seed in range(600):
        question, answer = questions.counting(Random(seed))
        asked, told = (
            [int(number) for number in re.findall(r"\d+", text)] for text in (question, answer)
        )
        if question.startswith("Count"):
            first = asked[0] if len(asked) == 2 else 1
            assert told == list(range(first, asked[-1] + 1))
        else:
            assert told == [asked[0], asked[0] + (1 if "after" in question else -1)]

        question, answer = questions.comparison(Random(seed))
        asked = [int(number) for number in re.findall(r"\d+", question)]
        if "or odd" in question:
            assert ("even" in answer) == (asked[0] % 2 == 0)
        else:
            assert answer.startswith(f"{max(asked) if 'bigger' in question else min(asked)} is ")


def test_the_calendar_is_right() -> None:
    orders = (facts.DAYS, facts.MONTHS, facts.SEASONS)
    follows = {
        (names[i - 1], names[i]) for names in orders for i in range(len(names))
    }  # fmt: skip
    for seed in range(400):
        _, answer = questions.calendar(Random(seed))
        if match := re.fullmatch(r"After (\w+) comes (\w+)\.", answer):
            assert match.groups() in follows
        elif match := re.fullmatch(r"Before (\w+) comes (\w+)\.", answer):
            assert match.groups()[::-1] in follows


def test_no_question_about_facts_has_two_answers() -> None:
    opposites = list(chain.from_iterable(facts.OPPOSITES))
    assert len(opposites) == len(set(opposites))
    assert len(set(facts.CAPITALS.values())) == len(facts.CAPITALS)
    assert len(set(facts.USES.values())) == len(facts.USES)
    answers: dict[str, set[str]] = {}
    for kind in (questions.capital_city, questions.opposite, questions.use, questions.colour):
        for seed in range(1500):
            question, answer = kind(Random(seed))
            answers.setdefault(question, set()).add(answer)
    assert {question: told for question, told in answers.items() if len(told) > 1} == {}


def test_a_document_reads_as_the_chat_template_renders_it() -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(CHAT_TEMPLATE)
    turns = (Turn("system", "Be kind."), Turn("user", "Hello"), Turn("assistant", "Hi!"))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]

    def render(count: int, prompt: bool) -> str:
        return str(
            template.render(
                messages=messages[:count],
                bos_token=BOS,
                eos_token=EOS,
                add_generation_prompt=prompt,
            )
        )

    assert render(3, False) == Document(turns).render()
    assert render(2, True) == f"{BOS}{SYSTEM}Be kind.{USER}Hello{ASSISTANT}"


def test_the_bundled_checkpoint_is_whole_and_small() -> None:
    names = {path.name for path in bundled.PATH.iterdir()}
    assert names >= {
        "README.md", "config.json", "generation_config.json", "model.safetensors",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in bundled.PATH.iterdir()) < 6_000_000
    config = json.loads((bundled.PATH / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == (BOS, EOS, PAD)
