"""Finds records by vectors, windows of long texts and words, and ranks them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

import msgspec
import trio

from engram.durable.driver import sqlite3
from engram.memory.model import Excerpt
from engram.memory.search import ranking, rules, words_db
from engram.memory.search.rules import SearchInput
from engram.memory.search.windows import Windows
from engram.memory.search.words import Words
from engram.memory.store import record_sql
from engram.memory.store.protocol import Store
from engram.memory.store.record_db import Truth
from engram.memory.store.record_sql import Candidate

_MORE_WORDS: Final = 8
"""How many times as many records with a word are ranked when too few meet the conditions."""


class Ranked(msgspec.Struct, frozen=True):
    """A record that was found. `score` is the cosine, of its best window where windows count; `relevance` what it was
    ordered by, None for a plain search."""

    record: Excerpt
    score: float
    relevance: float | None = None


@final
class Searcher:
    """Searches one node. Without `words` or `windows` a search by them finds what the vectors alone find."""

    def __init__(self, store: Store, truth: Truth, words: Words | None, windows: Windows | None) -> None:
        self._store = store
        self._truth = truth
        self._words = words
        self._windows = windows

    async def find(self, namespace: str, wanted: SearchInput, vector: bytes) -> list[Ranked]:
        """Return the best records of a namespace, best first; `vector` is what is looked for.

        Superseded and expired records and those that do not meet the filter are left out before the best are chosen.
        Raises IndexUnavailable, TruthUnavailable.
        """
        if wanted.is_plain:
            plain = await self._store.query(namespace, vector, wanted.top_k, wanted.conditions)
            return [Ranked(hit.record, hit.score) for hit in plain]
        windows = await self._found_windows(namespace, wanted, vector)
        near = {}
        if wanted.mode != "words":
            hits = await self._store.query(namespace, vector, wanted.pool, wanted.conditions)
            near = {hit.record.id: hit for hit in hits}
        words, held = await self._joined(namespace, wanted, near, windows)
        ids = list(held)
        cosines = dict(zip(ids, ranking.cosines(vector, [held[number].embedding for number in ids]), strict=True))
        scores = {number: near[number].score if number in near else cosines[number] for number in {*near, *held}}
        scores = {number: max(score, windows.get(number, -1.0)) for number, score in scores.items()}
        records = {number: hit.record for number, hit in near.items()}
        records |= {number: each.record for number, each in held.items()}
        ranked = self._ranked(wanted, records, scores, words, held)
        if wanted.diversity and len(ranked) > 1:
            vectors = [held[each.record.id].embedding for each in ranked if each.record.id in held]
            ranked = [each for each in ranked if each.record.id in held]
            worth = [each.relevance or 0.0 for each in ranked]
            order = await trio.to_thread.run_sync(ranking.diversified, worth, vectors, wanted.diversity, wanted.top_k)
            return [ranked[place] for place in order]
        return ranked[: wanted.top_k]

    async def _found_windows(self, namespace: str, wanted: SearchInput, vector: bytes) -> dict[int, float]:
        if self._windows is None or not wanted.wants_windows:
            return {}
        return await self._windows.find(namespace, vector)

    async def _joined(
        self, namespace: str, wanted: SearchInput, near: Iterable[int], windows: Mapping[int, float]
    ) -> tuple[dict[int, float], dict[int, Candidate]]:
        """Return the records that have a word, and what `_held` returns for them and for `windows`.

        Those that fit best are read first, and more of them until enough meet the conditions.
        """
        if self._words is None or not wanted.wants_words:
            held, _ = await self._held(namespace, wanted, near, [windows])
            return {}, held
        most = words_db.FIRST_RANKED
        while True:
            words = await self._words.find(namespace, wanted.words, most)
            held, (enough, _) = await self._held(namespace, wanted, near, [words, windows])
            if enough or len(words) < most:
                return words, held
            most *= _MORE_WORDS

    async def _held(
        self, namespace: str, wanted: SearchInput, near: Iterable[int], found: Sequence[Iterable[int]]
    ) -> tuple[dict[int, Candidate], list[bool]]:
        """Return what must be known of records beyond what the index says, with as many of each search as are ranked;
        and for each search whether there were as many.

        All of it is read from one snapshot.
        """
        now, needs_all = self._truth.now(), wanted.diversity > 0 or wanted.recency_s is not None

        def read(connection: sqlite3.Connection) -> tuple[dict[int, Candidate], list[bool]]:
            held: dict[int, Candidate] = {}
            enough: list[bool] = []
            if needs_all:
                held |= record_sql.candidates(connection, namespace, list(near), wanted.conditions, now)
            for each in found:
                ids = list(each)
                taken = 0
                for start in range(0, len(ids), wanted.pool):
                    some = ids[start : start + wanted.pool]
                    there = record_sql.candidates(connection, namespace, some, wanted.conditions, now)
                    held |= there
                    taken += len(there)
                    if taken >= wanted.pool:
                        break
                enough.append(taken >= wanted.pool)
            return held, enough

        if not needs_all and not any(found):
            return {}, [False] * len(found)
        return await self._truth.read(read)

    def _ranked(
        self,
        wanted: SearchInput,
        records: Mapping[int, Excerpt],
        scores: Mapping[int, float],
        words: Mapping[int, float],
        held: Mapping[int, Candidate],
    ) -> list[Ranked]:
        now = self._truth.now()
        best = max((words.get(number, 0.0) for number in records), default=0.0)
        ranked = [
            Ranked(
                record,
                scores[number],
                rules.relevance(
                    wanted.mode,
                    scores[number],
                    words.get(number, 0.0),
                    best,
                    age_s=now - held[number].created_at if number in held else 0.0,
                    half_life_s=wanted.recency_s,
                ),
            )
            for number, record in records.items()
            if number in held or wanted.recency_s is None  # one that was deleted since has no age
        ]
        return sorted(ranked, key=lambda each: (-(each.relevance or 0.0), -each.score, each.record.id))
