"""The words of texts and of queries, as the full-text index takes them: pure functions.

The index (SQLite FTS5, `unicode61` with Porter's stemmer) takes runs of letters, digits and the marks on them as words.
Both sides are brought to one spelling first: full-width and half-width forms, ligatures, case, and Arabic and Hebrew
without their vowel marks. Chinese and
Japanese are written without spaces, so their characters are indexed one by one and looked for in pairs. Nothing of a
query is an operator: each word is quoted.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

MAX_TERMS: Final = 64
"""The most different words of a query that are looked for, from its beginning."""
_LONGEST_WORD: Final = 256
_COMMON_WORDS: Final = (
    "a about after all also an and any are as at be been before being but by can could did do does for from had has"
    " have he her here him his how i if in into is it its itself just me more most my no not now of on only or other"
    " our out over own she should so some such than that the their them then there these they this those through to"
    " too under until up use used very was we were what when where which while who whom whose why will with would you"
    " your"
)
"""English words that nearly every text has. They would add next to nothing to a score and take most of the time."""
_COMMON: Final = frozenset(_COMMON_WORDS.split())
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
_BETWEEN: Final = re.compile(f"([{_UNSPACED}])")
_RUN: Final = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_ASCII_WORD: Final = re.compile(r"[^\W_]+")
_MARKS: Final = frozenset(("Mn", "Mc"))
_VOWEL_MARKS: Final = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06ed]+"
)


def indexed(text: str) -> str:
    """Return a text as it is given to the index.

    >>> indexed("in 東京 today")
    'in  東  京  today'
    """
    if text.isascii():
        return text
    return _BETWEEN.sub(r" \1 ", _spelt(text))


def expression(query: str) -> str:
    """Return the FTS5 expression that finds any of the words of a query; empty when it has none.

    Common words are looked for only where there are no others.

    >>> print(expression('C++ AND foo-bar "x"'))
    "c" OR "foo" OR "bar" OR "x"
    >>> expression("東京都"), expression("+++")
    ('"東 京" OR "京 都"', '')
    """
    terms = dict.fromkeys(_terms(query if query.isascii() else _spelt(query)))
    wanted = [term for term in terms if term not in _COMMON] or list(terms)
    return " OR ".join(f'"{term}"' for term in wanted[:MAX_TERMS])


def _terms(query: str) -> Iterator[str]:
    for word in _words(query):
        for run in _RUN.findall(word):
            if not any(map(str.isalnum, run)):  # a mark on nothing
                continue
            if _BETWEEN.match(run) is None:
                yield run.lower()[:_LONGEST_WORD]
            elif len(run) == 1:
                yield run
            else:
                yield from (f"{first} {second}" for first, second in itertools.pairwise(run))


def _words(query: str) -> list[str]:
    if query.isascii():
        return _ASCII_WORD.findall(query)
    return "".join(each if each.isalnum() or unicodedata.category(each) in _MARKS else " " for each in query).split()


def _spelt(text: str) -> str:
    """Return a text in the one spelling that is indexed and looked for."""
    return unicodedata.normalize("NFKC", _VOWEL_MARKS.sub("", unicodedata.normalize("NFKC", text).casefold()))
