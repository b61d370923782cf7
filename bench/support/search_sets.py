"""Texts and questions for measuring search, made from what is installed here.

| set | records | questions |
|---|---|---|
| docstrings | docstrings of Python's library and of installed packages, without their first sentence | that sentence |
| packages | long descriptions of installed Debian packages | their summaries |
| identifiers | the docstrings | a name in code style that one of them alone has |
| near, far | long texts: a module's docstrings, without first sentences, cut at 8,000 characters | first sentences |
| facts | 160 facts in three versions each, stored one behind another under one key | asks for the fact |

Questions of `near` are about the first 1,000 characters of a long text, those of `far` about what is behind 2,000.

`search_sets.json` beside this file has the ids (8 hex digits of a SHA-256) of the records that the figures of
docs/search.md were measured on. What is not installed here is missing then; without the file, records are chosen by
their ids.
"""

import ast
import hashlib
import json
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

IDS = Path(__file__).with_suffix(".json")
_SENTENCE = re.compile(r"(?<=[a-z)\]\"'`])\.\s")
_IDENTIFIER = re.compile(r"\b(?:[a-z]+[A-Z]\w*|[A-Z][a-z]+[A-Z]\w*|\w*[a-z]\w*_\w+|[A-Za-z]+\d+\w*)\b")
_LONG_CHARS = 8_000
_PACKAGES = ("hypothesis", "networkx", "numpy", "pydantic", "scipy", "sqlalchemy", "sympy", "trio")


class Question(msgspec.Struct, frozen=True):
    """A text to search for, and the id of the record that is the answer."""

    text: str
    answer: str


class Set(msgspec.Struct, frozen=True):
    """Records by id, and questions for them."""

    records: dict[str, str]
    questions: list[Question]


def id_of(text: str) -> str:
    """The id of a record."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def made(amount: int, questions: int, long_texts: int) -> dict[str, Set]:
    """All sets: that many records of the first two, questions, and long texts."""
    known: dict[str, list[str]] = json.loads(IDS.read_text()) if IDS.exists() else {}
    pairs = list(_docstrings())
    docstrings = _chosen(pairs, amount, known.get("docstrings"))
    packages = _chosen(list(_packages()), amount, known.get("packages"))
    sets = {"docstrings": _set(docstrings, questions), "packages": _set(packages, questions)}
    sets["identifiers"] = Set(sets["docstrings"].records, _identifiers(sets["docstrings"].records, questions))
    long = _long(known.get("long"), long_texts)
    for name, among in (("near", (0, 1_000)), ("far", (2_000, _LONG_CHARS))):
        records = {id_of(text): text for text, _ in long}
        asked = [
            Question(first, id_of(text))
            for text, firsts in long
            for at, first in firsts[::3]
            if among[0] <= at < among[1] - 200
        ]
        sets[name] = Set(records, sorted(asked, key=lambda each: id_of(each.text))[:questions])
    return sets


def facts(amount: int) -> Iterator[tuple[str, list[str], str]]:
    """Key, versions from the oldest to the newest, and question of each fact."""
    people = ["Anna", "Bert", "Chiara", "Dmitri", "Eun-ji", "Farid", "Grete", "Hugo", "Ines", "Jamal"]
    kinds: dict[str, Sequence[str]] = {
        "lives in": ("Paris", "Oslo", "Lima"),
        "works as": ("a nurse", "a pilot", "a cook"),
        "drives": ("a red van", "an old truck", "an electric car"),
        "is allergic to": ("peanuts", "pollen", "shellfish"),
        "plays": ("the violin", "the drums", "the oboe"),
        "votes for": ("the green list", "the harbor party", "nobody at all"),
        "studies": ("geology", "Latin", "statistics"),
        "owns": ("two cats", "a parrot", "three goats"),
    }
    last_names = ("Meyer", "Rossi")
    listed = [(first, last, kind) for kind in kinds for first in people for last in last_names]
    for first, last, kind in listed[:amount]:
        versions = [f"{first} {last} {kind} {value}." for value in kinds[kind]]
        yield f"{first} {last} {kind}", versions, f"What do we know about {first} {last}: {kind} what or where?"


def ids(sets: dict[str, Set]) -> dict[str, list[str]]:
    """What `search_sets.json` has."""
    return {
        "docstrings": sorted(sets["docstrings"].records),
        "packages": sorted(sets["packages"].records),
        "long": sorted(sets["far"].records),
    }


def _set(pairs: Sequence[tuple[str, str]], questions: int) -> Set:
    asked = sorted((Question(first, id_of(rest)) for first, rest in pairs), key=lambda each: id_of(each.text))
    return Set({id_of(rest): rest for _, rest in pairs}, asked[:questions])


def _chosen(pairs: Sequence[tuple[str, str]], amount: int, known: Sequence[str] | None) -> list[tuple[str, str]]:
    there = {id_of(rest): (first, rest) for first, rest in pairs}
    wanted = known if known is not None else sorted(there)
    return [there[each] for each in wanted if each in there][:amount]


def _docstrings() -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for path in _sources():
        for doc in _docs_of(path):
            first, rest = _parted(doc)
            if 15 <= len(first) <= 200 and 60 <= len(rest) <= 4_000 and first not in seen:
                seen.add(first)
                yield first, rest


def _sources() -> list[Path]:
    packages = Path(sysconfig.get_path("purelib"))
    roots = [Path(sysconfig.get_path("stdlib")), *(packages / name for name in _PACKAGES)]
    found = {path for root in roots for path in root.rglob("*.py")}
    return sorted(path for path in found if not {"test", "tests", "idlelib", "site-packages"} & set(_below(path)))


def _below(path: Path) -> tuple[str, ...]:
    parts = path.parts
    return parts[parts.index("site-packages") + 1 :] if any(name in parts for name in _PACKAGES) else parts


@cache
def _docs_of(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, holders)]
    return [doc for doc in docs if doc and doc.isascii()]


def _parted(doc: str) -> tuple[str, str]:
    text = " ".join(doc.split())
    found = _SENTENCE.search(text)
    return (text[: found.start()], text[found.end() :]) if found else (text, "")


def _packages() -> Iterator[tuple[str, str]]:
    end = "== end ==\n"
    command = ["dpkg-query", "-W", "-f", "${Description}\n" + end.replace("\n", "\\n")]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split(end)
    except (OSError, subprocess.SubprocessError):
        return
    for each in listed:
        summary, _, text = each.partition("\n")
        rest = " ".join(line.strip() for line in text.splitlines() if line.strip() != ".")
        if len(rest) >= 120:
            yield summary, rest


def _identifiers(records: dict[str, str], questions: int) -> list[Question]:
    having = Counter(name for text in records.values() for name in set(_IDENTIFIER.findall(text)))
    found = [
        Question(name, number)
        for number, text in sorted(records.items())
        for name in sorted(set(_IDENTIFIER.findall(text)))[:1]
        if having[name] == 1 and len(name) >= 6
    ]
    return sorted(found, key=lambda each: id_of(each.text))[:questions]


def _long(known: Sequence[str] | None, most: int) -> list[tuple[str, list[tuple[int, str]]]]:
    """Long texts, each with where the rests of docstrings begin in it and their first sentences."""
    texts: dict[str, tuple[str, list[tuple[int, str]]]] = {}
    for path in _sources():
        text, firsts = "", list[tuple[int, str]]()
        for doc in _docs_of(path):
            first, rest = _parted(doc)
            if 30 <= len(first) <= 200 and len(rest) >= 120:
                firsts.append((len(text), first))
                text += rest + " "
        if len(text) >= _LONG_CHARS:
            cut = text[:_LONG_CHARS].strip()
            texts[id_of(cut)] = (cut, firsts)
    wanted = known if known is not None else sorted(texts)
    return [texts[each] for each in wanted if each in texts][:most]


if __name__ == "__main__":
    IDS.unlink(missing_ok=True)
    IDS.write_text(json.dumps(ids(made(*map(int, sys.argv[1:])))) + "\n")
