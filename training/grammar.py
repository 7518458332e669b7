"""Sentences with slots: articles, capitals and pronouns that agree."""

from dataclasses import dataclass
from random import Random

# Vowel letters that sound like consonants, and the other way round.
_LONG_U = ("uni", "use", "usu", "one", "eu")
_SILENT_H = ("hour", "honest")


def article(noun: str) -> str:
    """Return "a" or "an", as the sound at the start of `noun` asks."""
    word = noun.lower()
    if word.startswith(_SILENT_H):
        return "an"
    if word.startswith(_LONG_U):
        return "a"
    return "an" if word[0] in "aeiou" else "a"


def capital(text: str) -> str:
    """Return `text` with its first letter in upper case and the rest as it was."""
    return text[:1].upper() + text[1:]


class Phrase(str):
    """A string that a template can ask for with an article or a capital.

    `{x}` is the phrase itself, `{x:a}` has its article, `{x:A}` its article with a capital
    and `{x:^}` a capital only.
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Return the phrase in the form that `spec` names."""
        match spec:
            case "a":
                return f"{article(self)} {self}"
            case "A":
                return capital(f"{article(self)} {self}")
            case "^":
                return capital(self)
            case _:
                return str.__format__(self, spec)


@dataclass(frozen=True, slots=True)
class Character:
    """Someone in a story: how they are named, introduced and referred to."""

    name: str
    kind: str
    pronoun: str  # "he" or "she"

    def slots(self, prefix: str) -> dict[str, Phrase]:
        """Return the template slots of this character, each starting with `prefix`.

        The hero has the prefix "" and the slots name, kind, he, him, his and himself;
        a friend with the prefix "f_" has f_name, f_kind, f_he and so on.
        """
        he, him, his = ("he", "him", "his") if self.pronoun == "he" else ("she", "her", "her")
        forms = {"name": self.name, "kind": self.kind, "he": he, "him": him, "his": his}
        forms["himself"] = f"{him}self"
        return {prefix + slot: Phrase(form) for slot, form in forms.items()}


def fill(rng: Random, choices: tuple[str, ...], slots: dict[str, Phrase]) -> str:
    """Return one of `choices` with every slot filled; an unknown slot raises KeyError."""
    return rng.choice(choices).format_map(slots)
