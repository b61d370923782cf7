"""The words of texts and of queries, as the full-text index takes them: pure functions.

The index (SQLite FTS5, `unicode61` with Porter's stemmer) takes runs of letters and digits as words. Chinese and
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
_WORD: Final = re.compile(r"[^\W_]+")


def indexed(text: str) -> str:
    """Return a text as it is given to the index.

    >>> indexed("in 東京 today")
    'in  東  京  today'
    """
    if text.isascii():
        return text
    return _BETWEEN.sub(r" \1 ", unicodedata.normalize("NFC", text))


def expression(query: str) -> str:
    """Return the FTS5 expression that finds any of the words of a query; empty when it has none.

    Common words are looked for only where there are no others.

    >>> print(expression('C++ AND foo-bar "x"'))
    "c" OR "foo" OR "bar" OR "x"
    >>> expression("東京都"), expression("+++")
    ('"東 京" OR "京 都"', '')
    """
    terms = dict.fromkeys(_terms(unicodedata.normalize("NFC", query)))
    wanted = [term for term in terms if term not in _COMMON] or list(terms)
    return " OR ".join(f'"{term}"' for term in wanted[:MAX_TERMS])


def _terms(query: str) -> Iterator[str]:
    for word in _WORD.findall(query):
        for run in _RUN.findall(word):
            if _BETWEEN.match(run) is None:
                yield run.lower()[:_LONGEST_WORD]
            elif len(run) == 1:
                yield run
            else:
                yield from (f"{first} {second}" for first, second in itertools.pairwise(run))
