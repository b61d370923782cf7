"""How a search is asked for and how its hits are ranked: pure functions.

| mode | what is looked at | order |
|---|---|---|
| none | the record's own vector, as validators ask | cosine |
| `vector` | that, and the windows of long texts: the best one counts | cosine |
| `words` | words of the texts (BM25) | BM25 over the best one's |
| `hybrid` | all of these | cosine + 0.3 times BM25 over the best one's |

With `recency`, a half-life, 0.2 halved by every half-life of a record's age is added. The weights were set once and
measured on sets that they were not fitted to (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from engram.memory import rules
from engram.memory.errors import InvalidInput, InvalidRequest
from engram.memory.filters import Filter
from engram.memory.rules import RecordLimits

Mode: TypeAlias = Literal["vector", "words", "hybrid"]
MODES: Final[tuple[Mode, ...]] = ("vector", "words", "hybrid")
WORDS_WEIGHT: Final = 0.3
RECENCY_WEIGHT: Final = 0.2
LONGEST_HALF_LIFE_S: Final = 100 * 365 * 86_400.0
_LEAST_POOL: Final = 60
_POOL_FACTOR: Final = 4
_LARGEST_POOL: Final = 200


class SearchInput(msgspec.Struct, frozen=True):
    """A checked search. `text` is what is embedded unless there is an `embedding`; `words` what words are taken from.

    `recency_s` is a half-life in seconds; `diversity` is 0 (only relevance counts) to 1 (only variety does).
    """

    text: str | None
    embedding: bytes | None
    words: str
    top_k: int
    conditions: Filter
    mode: Mode | None = None
    diversity: float = 0.0
    recency_s: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a search by the records' own vectors, ranked by cosine alone."""
        return self.mode is None and not self.diversity and self.recency_s is None

    @property
    def wants_words(self) -> bool:
        """Whether words count."""
        return self.mode in ("words", "hybrid")

    @property
    def wants_windows(self) -> bool:
        """Whether the windows of long texts count."""
        return self.mode in ("vector", "hybrid")

    @property
    def pool(self) -> int:
        """How many records of each kind of search are ranked together."""
        if self.is_plain:
            return self.top_k
        return max(self.top_k, min(_LARGEST_POOL, max(_LEAST_POOL, _POOL_FACTOR * self.top_k)))


def check_search(body: Mapping[str, object], limits: RecordLimits) -> SearchInput:
    """Read what to search for, and how. Raises InvalidRequest for a wrong type, InvalidInput for a broken rule."""
    query = rules.check_query(body, limits)
    mode = _mode(body)
    words = ""
    if mode in ("words", "hybrid"):
        words = query.text or str(body.get("query_text") or "")
        if not words:
            raise InvalidInput(f"mode {mode} looks for words: send 'query_text' too.")
        rules.check_text(words, limits.max_text_chars)
    history = body.get("history")
    if not isinstance(history, bool | None):
        raise InvalidRequest("history must be true or false.")
    conditions = msgspec.structs.replace(query.conditions, current=not history)
    diversity, recency_s = _diversity(body), _half_life_s(body)
    return SearchInput(query.text, query.embedding, words, query.top_k, conditions, mode, diversity, recency_s)


def relevance(
    mode: Mode | None,
    cosine: float,
    words: float,
    best_words: float,
    *,
    age_s: float = 0.0,
    half_life_s: float | None = None,
) -> float:
    """Return what records are ordered by; `words` and `best_words` are BM25, above 0 where a word is found.

    >>> round(relevance("hybrid", 0.5, 2.0, 4.0), 3), round(relevance("words", 0.5, 2.0, 4.0), 3)
    (0.65, 0.5)
    >>> round(relevance(None, 0.5, 0.0, 0.0, age_s=60.0, half_life_s=60.0), 3)
    0.6
    """
    share = words / best_words if best_words > 0 else 0.0
    match mode:
        case "words":
            found = share
        case "hybrid":
            found = cosine + WORDS_WEIGHT * share
        case _:
            found = cosine
    if half_life_s is not None:
        found += RECENCY_WEIGHT * 0.5 ** (max(0.0, age_s) / half_life_s)
    return found


def _mode(body: Mapping[str, object]) -> Mode | None:
    value = body.get("mode")
    if value is None:
        return None
    for mode in MODES:
        if value == mode:
            return mode
    raise InvalidRequest("mode must be vector, words or hybrid; left out, the records' own vectors are searched.")


def _diversity(body: Mapping[str, object]) -> float:
    value = body.get("diversity")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("diversity must be a number from 0 (by relevance alone) to 1.")
    if not 0 <= value <= 1:
        raise InvalidInput("diversity must be from 0 (by relevance alone) to 1.")
    return float(value)


def _half_life_s(body: Mapping[str, object]) -> float | None:
    value = body.get("recency")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("recency must be a number: the half-life in seconds.")
    if not 1 <= value <= LONGEST_HALF_LIFE_S:
        raise InvalidInput("recency must be a half-life of 1 second to 100 years, in seconds.")
    return float(value)
