"""Texts for planted records: families of notes about one invented matter, near to each other and to one question.

A family is drawn from random words, so no public text is as near to its question as its own notes are.
"""

from random import Random
from typing import Final

import msgspec

ATTEMPTS: Final = 8
SENTENCE: Final = 72
"""Characters of a sentence; a note of fewer begins as something jotted down."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


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
_ASPECTS: Final = (
    ("budget", "The budget for {place} is {number} and {person} signs for it."),
    ("budget", "{person} wants {number} more for {place} before the end of {month}."),
    ("schedule", "{place}: the opening moved to {day}, {number} people were told by {person}."),
    ("schedule", "Next meeting about {place} is on {day} at {hour}, {person} brings the plans."),
    ("repair", "The roof of {place} leaks again; {person} found a firm that can come on {day}."),
    ("repair", "{person} replaced the pump at {place}, part number {number}, in {month}."),
    ("people", "{person} joined {place} in {month} and looks after the {kind} books."),
    ("people", "Ask {person} about {place}, not the office: the office never answers."),
    ("decision", "We decided to keep {place} open through {month}; {person} was against it."),
    ("decision", "{place} will not be sold. {person} wrote to all {number} owners."),
    ("idea", "Idea for {place}: a small stand with coffee, {person} would run it on {day}s."),
    ("idea", "{person} thinks {place} should lend tools for {number} a week."),
    ("access", "The key of {place} hangs behind the clock; {person} has the second one."),
    ("access", "To reach {place}, take tram {number} and ask for {person} at the gate."),
)
_SHORT: Final = (
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


class Family(msgspec.Struct, frozen=True):
    """A matter that a family of notes is about."""

    place: str
    kind: str
    people: tuple[str, ...]


def family(rng: Random) -> Family:
    """Draw a matter with a name of its own and four people."""
    name = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4))).capitalize()
    kind = rng.choice(_KINDS)
    people = tuple(f"{rng.choice(_FIRST)} {rng.choice(_LAST)}" for _ in range(4))
    return Family(f"the {name} {kind}", kind, people)


def note(rng: Random, about: Family, length: int) -> str:
    """Draw a note about the matter, as near to `length` characters as one of several attempts comes."""
    return min((_attempt(rng, about, length) for _ in range(ATTEMPTS)), key=lambda text: abs(len(text) - length))


def _attempt(rng: Random, about: Family, length: int) -> str:
    text = _filled(rng, rng.choice(_SHORT) if length < SENTENCE else rng.choice(_ASPECTS)[1], about)
    while len(text) < length - 20:
        text += " " + _filled(rng, rng.choice((*_MORE, rng.choice(_ASPECTS)[1])), about)
    return text[0].upper() + text[1:]


def question(rng: Random, about: Family) -> str:
    """Draw a question that the notes about the matter answer."""
    return _filled(rng, rng.choice(_QUESTIONS), about)


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
