"""Texts for planted records: families of notes about one invented matter, near to each other and to one question.

A family is drawn from random words, so no public text is as near to its question as its own notes are. Which words is
up to the operator: those of this file are known to all who read it.
"""

import tomllib
from pathlib import Path
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engram import wire
from engram.validator.errors import WordsInvalid

ATTEMPTS: Final = 8
EXCERPT: Final = 80
LOOKED_AT: Final = 2_000
"""Characters of another's text that an excerpt is drawn from."""
SENTENCE: Final = 72
"""Characters of a sentence; a note of fewer begins as something jotted down."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


Words = Annotated[tuple[str, ...], Meta(min_length=5)]


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What texts are made of. Sentences and questions have the names of PLACEHOLDERS in braces."""

    first_names: Words
    last_names: Words
    syllables: Words
    """Of the names of places, two to four each."""
    kinds: Words
    """Of places."""
    sentences: Words
    """About a place."""
    jottings: Words
    """The same, for notes that are shorter than a sentence."""
    more: Words
    """Sentences that may follow."""
    questions: Words
    """About a place."""


PLACEHOLDERS: Final = ("place", "kind", "person", "day", "month", "hour", "number")
_FIRST: Final = _words(
    "Ada Amir Anika Arthur Bao Beatriz Carla Chidi Dario Dina Elif Emeka Esther Farid Freya Gael Hana Hugo Ines "
    "Ivan Jonas Kaito Kemal Leila Lior Magda Marek Mei Nadia Noor Olga Omar Paolo Priya Quinn Rania Rosa Sami "
    "Sofia Tariq Uma Vera Wanja Xenia Yara Yusuf Zeno Zofia"
)
_LAST: Final = _words(
    "Abara Almeida Becker Bianchi Castro Cohen Dahl Demir Eriksen Fischer Gomez Haddad Ito Jansen Kaya Kowalski "
    "Lang Lima Mbeki Moreau Nakamura Novak Okafor Park Petrov Quist Rahman Rossi Sato Silva Tanaka Toth Umar "
    "Vargas Weber Wong Yilmaz Zhou"
)
_SYLLABLES: Final = _words(
    "ba be bri cor da del fen ga hal in jo ka lan mer nor o pra quil ra sol tam ur vel wen xi za"
)
_KINDS: Final = _words(
    "greenhouse bakery ferry line archive clinic workshop vineyard observatory library warehouse school orchestra "
    "bicycle shop weather station bookstore newsletter podcast allotment harbor museum choir printing press "
    "pottery studio mountain hut fish farm tram depot print shop radio station sawmill"
)
_SENTENCES: Final = (
    "The budget for {place} is {number} and {person} signs for it.",
    "{person} wants {number} more for {place} before the end of {month}.",
    "{place}: the opening moved to {day}, {number} people were told by {person}.",
    "Next meeting about {place} is on {day} at {hour}, {person} brings the plans.",
    "The roof of {place} leaks again; {person} found a firm that can come on {day}.",
    "{person} replaced the pump at {place}, part number {number}, in {month}.",
    "{person} joined {place} in {month} and looks after the {kind} books.",
    "Ask {person} about {place}, not the office: the office never answers.",
    "We decided to keep {place} open through {month}; {person} was against it.",
    "{place} will not be sold. {person} wrote to all {number} owners.",
    "Idea for {place}: a small stand with coffee, {person} would run it on {day}s.",
    "{person} thinks {place} should lend tools for {number} a week.",
    "The key of {place} hangs behind the clock; {person} has the second one.",
    "To reach {place}, take tram {number} and ask for {person} at the gate.",
)
_JOTTINGS: Final = (
    "{place}",
    "{place}, {day}",
    "{place} {hour}",
    "{place}: {person}",
    "{place}: {number}",
    "{place}?",
    "{day}: {place}, {person}",
    "{person} about {place}",
    "{place} in {month}",
    "{place}: call {person}",
    "see {place}",
    "{place} {number}",
)
"""What people jot down, for notes that are shorter than a sentence."""
_MORE: Final = (
    "Write it down before {day}.",
    "{person} confirmed that by phone.",
    "Last year it was {number}.",
    "Nobody had asked for this in {month}.",
    "We will look at it again in {month}.",
    "The invoice is with {person}.",
    "It took {number} days longer than planned.",
    "Compare with what {person} said on {day}.",
)
_QUESTIONS: Final = (
    "What do we know about {place}?",
    "Everything on {place} and {person}",
    "notes about {place}",
    "What did {person} say about {place}?",
    "How do things stand with {place}?",
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = ("January", "March", "April", "June", "July", "September", "October", "November")


PUBLISHED: Final = Vocabulary(
    first_names=_FIRST,
    last_names=_LAST,
    syllables=_SYLLABLES,
    kinds=_KINDS,
    sentences=_SENTENCES,
    jottings=_JOTTINGS,
    more=_MORE,
    questions=_QUESTIONS,
)


class Family(msgspec.Struct, frozen=True):
    """A matter that a family of notes is about."""

    place: str
    kind: str
    people: tuple[str, ...]


def read_file(path: Path) -> Vocabulary:
    """Return the words of a TOML file; blocks. Raises WordsInvalid, naming what is wrong."""
    try:
        found = wire.convert(tomllib.loads(path.read_text("utf-8")), Vocabulary)
    except OSError as error:
        raise WordsInvalid(f"{path}: {error.strerror}") from error
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WordsInvalid(f"{path}: {error}") from None
    for text in (*found.sentences, *found.jottings, *found.more, *found.questions):
        try:
            text.format(**dict.fromkeys(PLACEHOLDERS, ""))
        except (ValueError, LookupError, AttributeError):
            raise WordsInvalid(f"{path}: {text!r} has other placeholders than {', '.join(PLACEHOLDERS)}") from None
    for text in (*found.sentences, *found.jottings, *found.questions):
        if "{place}" not in text:
            raise WordsInvalid(f"{path}: {text!r} must name the {{place}} that it is about")
    return found


def family(rng: Random, words: Vocabulary = PUBLISHED) -> Family:
    """Draw a matter with a name of its own and four people."""
    name = "".join(rng.choice(words.syllables) for _ in range(rng.randint(2, 4))).capitalize()
    kind = rng.choice(words.kinds)
    people = tuple(f"{rng.choice(words.first_names)} {rng.choice(words.last_names)}" for _ in range(4))
    return Family(f"the {name} {kind}", kind, people)


def note(rng: Random, about: Family, length: int, words: Vocabulary = PUBLISHED) -> str:
    """Draw a note about the matter, as near to `length` characters as one of several attempts comes."""
    return min((_attempt(rng, about, length, words) for _ in range(ATTEMPTS)), key=lambda text: abs(len(text) - length))


def _attempt(rng: Random, about: Family, length: int, words: Vocabulary) -> str:
    text = _filled(rng, rng.choice(words.jottings if length < SENTENCE else words.sentences), about)
    while len(text) < length - 20:
        text += " " + _filled(rng, rng.choice((*words.more, rng.choice(words.sentences))), about)
    return text[0].upper() + text[1:]


def question(rng: Random, about: Family, words: Vocabulary = PUBLISHED) -> str:
    """Draw a question that the notes about the matter answer."""
    return _filled(rng, rng.choice(words.questions), about)


def question_about(rng: Random, words_of_another: str, words: Vocabulary = PUBLISHED) -> str:
    """Draw a question about a few words of a text that is not ours, as those are that planted notes answer."""
    return question(rng, msgspec.structs.replace(family(rng, words), place=words_of_another), words)


def excerpt(rng: Random, text: str) -> str:
    """Return two to four words that follow one another in a text, at most EXCERPT characters; empty when it has none.

    >>> excerpt(Random(1), "one"), excerpt(Random(1), " ")
    ('one', '')
    """
    found = text[:LOOKED_AT].split()
    if not found:
        return ""
    count = min(len(found), rng.randint(2, 4))
    start = rng.randrange(len(found) - count + 1)
    return " ".join(found[start : start + count])[:EXCERPT]


def _filled(rng: Random, template: str, about: Family) -> str:
    return template.format(
        place=about.place,
        kind=about.kind,
        person=rng.choice(about.people),
        day=rng.choice(_DAYS),
        month=rng.choice(_MONTHS),
        hour=f"{rng.randint(8, 19)}:{rng.choice(('00', '15', '30', '45'))}",
        number=rng.randint(3, 960),
    )
