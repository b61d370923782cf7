"""Names are nouns of the domain or verbs of what is done: words that could name anything are no names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.house import sources

FORBIDDEN: Final = frozenset({"told", "asked", "whoever", "nobody", "anew", "theirs"})


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that a module defines: functions, classes, parameters, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(asname=str(name)):
                yield name
            case _:
                pass


def forbidden(source: str) -> set[str]:
    """The names of a module that have a forbidden word among their words."""
    if not any(word in source.lower() for word in FORBIDDEN):
        return set()
    return {name for name in names(ast.parse(source)) if FORBIDDEN & {w.lower() for w in _words(name)}}


def _words(name: str) -> list[str]:
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)


def _modules() -> list[Path]:
    return sources.files()


@pytest.mark.parametrize("path", _modules(), ids=lambda path: path.relative_to(sources.ROOT).as_posix())
def test_no_name_is_a_word_that_could_name_anything(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8")) == set()


def test_the_words_of_a_name_are_found() -> None:
    source = "class AskedTwice: ...\ndef f(told_at): self._theirs = anew = 1\nbasket = nobodys = untold = 2\n"
    assert forbidden(source) == {"AskedTwice", "told_at", "_theirs", "anew"}
