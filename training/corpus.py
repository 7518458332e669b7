"""The training text: plain stories and conversations, in any amount, the same for the same seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from training import questions
from training.stories import Story, tell

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BOS, EOS, SYSTEM, USER, ASSISTANT)

Role = Literal["text", "system", "user", "assistant"]
MARKS: dict[Role, str] = {"text": "", "system": SYSTEM, "user": USER, "assistant": ASSISTANT}

# Renders messages exactly as `Document.render` does.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

SYSTEM_TEXTS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "You are a storyteller.",
    "You answer simple questions.", "You are a kind teacher.", "Be polite and brief.",
    "You are a helpful assistant. Use simple words.",
)  # fmt: skip
STORY_REQUESTS = (
    "Tell me a story about {topic}.", "Write a story about {topic}.",
    "A story about {topic}, please.",
    "Can you tell me a story about {topic}?", "I want to hear a story about {topic}.",
    "Please write a story about {topic}.", "Make up a story about {topic}.",
)  # fmt: skip
OPEN_REQUESTS = (
    "Tell me a story.", "Tell me a story, please.", "I would like to hear a story.",
    "Can you tell me a story?", "Do you know a story?", "Write a story.", "Make up a story.",
)  # fmt: skip
STORY_INTROS = ("", "", "", "Here is a story for you. ", "Of course! ", "Let me tell you a story. ")


@dataclass(frozen=True, slots=True)
class Turn:
    """One part of a document and who says it; "text" is plain text outside a conversation."""

    role: Role
    text: str

    @property
    def spoken(self) -> bool:
        """Whether the model is to write this itself."""
        return self.role in ("text", "assistant")


@dataclass(frozen=True, slots=True)
class Document:
    """A plain text (one turn) or a conversation."""

    turns: tuple[Turn, ...]

    def render(self) -> str:
        """Return the document as the model reads it, special tokens included."""
        return BOS + "".join(
            MARKS[turn.role] + turn.text + (EOS if turn.spoken else "") for turn in self.turns
        )


def _as_typed(rng: Random, question: str) -> str:
    """Return the question as people type it: now and then without capitals or full stop."""
    if rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.12:
        question = question.rstrip("?.!")
    return question


def _story_request(rng: Random) -> tuple[Story, questions.Pair]:
    """Return a story, and the request and answer that tell it."""
    chapters, length = rng.choice(((1, ""), (1, ""), (1, ""), (1, ""), (1, "short"), (2, "long")))
    story = tell(rng, chapters=chapters, short=length == "short")
    if rng.random() < 0.25:
        request = rng.choice(OPEN_REQUESTS)
    else:
        request = rng.choice(STORY_REQUESTS).format(topic=rng.choice(story.topics))
    if length:
        request = request.replace("story", f"{length} story")
    return story, (request, rng.choice(STORY_INTROS) + story.text)


def _about_story(rng: Random, story: Story) -> questions.Pair:
    """Return a question about a story that was just told."""
    hero, friend = story.hero, story.friend
    answers = [
        ("Who was the story about?", f"The story was about {hero.name} and {friend.name}."),
        (f"Who is {friend.name}?", "{name} is {kind:a}.".format_map(friend.slots(""))),
        (f"What was {hero.name}?", "{name} was {kind:a}.".format_map(hero.slots(""))),
    ]
    if story.home is not None:
        answers.append((f"Where did {hero.name} live?", f"{hero.name} lived {story.home}."))
    return rng.choice(answers)


def _conversation(rng: Random) -> Document:
    """Return one to four questions and answers, some of them stories."""
    turns: list[Turn] = []
    if rng.random() < 0.2:
        turns.append(Turn("system", rng.choice(SYSTEM_TEXTS)))

    def add(question: str, answer: str) -> None:
        turns.append(Turn("user", _as_typed(rng, question)))
        turns.append(Turn("assistant", answer))

    if rng.random() < 0.16:
        story, pair = _story_request(rng)
        add(*pair)
        if rng.random() < 0.3:
            add(*_about_story(rng, story))
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            add(*questions.ask(rng))
    return Document(tuple(turns))


def _plain(rng: Random) -> Document:
    """Return a story as plain text, sometimes under its title."""
    story = tell(rng, short=rng.random() < 0.2)
    heading = f"{story.title}\n\n" if rng.random() < 0.15 else ""
    return Document((Turn("text", heading + story.text),))


def documents(seed: int, count: int) -> Iterator[Document]:
    """Yield `count` documents, the same for the same seed: conversations and some plain stories."""
    rng = Random(seed)
    for _ in range(count):
        yield _plain(rng) if rng.random() < 0.12 else _conversation(rng)
