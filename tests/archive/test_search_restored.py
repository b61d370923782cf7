"""A restored memory answers searches of all modes as the archived one did, with facts that changed and long texts."""

import random
from pathlib import Path
from typing import Any

import pytest

from engram.memory.model import PUBLIC, Validity
from tests.archive.nodes import OWNER
from tests.archive.test_archive import Shelf
from tests.memory.search.searchers import READ, Searching, ShortSighted, searching
from tests.sampling import SEED

QUERIES = 500
WORDS = ["otter", "whale", "walrus", "kelp", "bay", "sleep", "hand", "paw", "whistle", "dance", "LimeSDR", "foo_bar"]
WORDS += ["Paris", "Rome", "Oslo", "home", "tea"]
OPTIONS: list[dict[str, Any]] = [{}, {"history": True}, {"recency": 60.0}, {"diversity": 0.4}, {"filter": {"tag": "1"}}]
MODES = (None, "vector", "words", "hybrid")
MINE = bytes(OWNER.public_key)


async def fill(it: Searching, rng: random.Random) -> None:
    cids: list[str] = []
    for number in range(240):
        text = f"{' '.join(rng.choices(WORDS, k=rng.randint(3, 9)))} {number}"
        if number % 6 == 0:
            text = text.ljust(READ) + " ".join(rng.choices(WORDS, k=12))
        key = f"fact {rng.randrange(12)}" if number % 3 == 0 else None
        supersedes = rng.choice(cids) if cids and number % 7 == 0 else None
        expires_at = it.clock.now() + rng.choice([-50, 50, 5_000]) if number % 5 == 0 else None
        namespace = PUBLIC if number % 4 == 0 else "notes"
        shown = {"text": text, "tag": str(number % 3)} if namespace == PUBLIC else {"tag": str(number % 3)}
        marks: Any = shown
        validity = Validity(key, supersedes, expires_at)
        record = await it.put(text, namespace, owner=MINE, validity=validity, made_here=number % 8 != 1, **marks)
        cids.append(record.cid)
        it.clock.advance(1)
    for cid in rng.sample(cids, 12):
        for namespace in (PUBLIC, "notes"):
            await it.store.delete(namespace, cid)
    await it.windows.reached(10)


async def asked(it: Searching, rng: random.Random) -> list[object]:
    found: list[object] = []
    for number in range(QUERIES):
        options: dict[str, Any] = {"mode": MODES[number % 4], "top_k": rng.choice([1, 5, 40])}
        options |= rng.choice(
            [{}, {}, {"history": True}, {"recency": 60.0}, {"diversity": 0.4}, {"filter": {"tag": "1"}}]
        )
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
        hits = await it.find(text, rng.choice([PUBLIC, "notes"]), **options)
        found.append([(hit.record, round(hit.score, 6), hit.relevance and round(hit.relevance, 6)) for hit in hits])
    return found


async def test_five_hundred_searches_answer_alike_after_archive_and_restore(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    async with searching(shelf.node.folder, ShortSighted()) as it:
        await fill(it, random.Random(SEED))
        at = it.clock.now()
        before = await asked(it, random.Random(SEED))
    assert sum(bool(each) for each in before) > 0.9 * QUERIES
    await shelf.update()
    await shelf.restore()
    async with searching(shelf.target, ShortSighted()) as it:
        it.clock.advance(at - it.clock.now())
        await it.windows.reached(10)
        after = await asked(it, random.Random(SEED))
    assert after == before
    assert it.clock.now() == pytest.approx(at)
