"""Checks that records still match their CIDs before anything about them is proved or signed.

Nothing else finds a bit that changed on disk while a node runs, since its trees are kept in memory. One
record is hashed whenever it is served; all of a namespace before its root is signed, at most once a second and for at
most a twentieth of the time (12 µs a record).
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec
import trio

from engram.durable.driver import sqlite3
from engram.memory import cid as cids
from engram.memory.errors import RecordDamaged
from engram.memory.store.record_db import Truth

_LEAST_BETWEEN_S: Final = 1.0
_SHARE: Final = 20
"""The pause after a check is this many times as long as the check took."""
_PAGE: Final = 1_000
_NAMESPACES: Final = 1_024
_ALL: Final = ""
"""The key for a check of all namespaces; no namespace has this name."""


class _Checked(msgspec.Struct, frozen=True):
    at_s: float
    took_s: float
    bad: str | None


@final
class Soundness:
    """Calls `on_damage` with the CID whenever a damaged record is met. Use it from the trio thread only."""

    def __init__(self, truth: Truth, on_damage: Callable[[str], None]) -> None:
        self._truth = truth
        self._on_damage = on_damage
        self._checked: OrderedDict[str, _Checked] = OrderedDict()
        self._checking = trio.Lock()

    def require(self, cid: str, embedding: bytes, metadata: Mapping[str, str], model_version: str) -> None:
        """Raise RecordDamaged unless the record matches its CID."""
        if cids.compute(embedding, metadata, model_version) != cid:
            raise self._damaged(cid)

    async def require_all(self, namespace: str | None = None) -> None:
        """Raise RecordDamaged unless all records of a namespace (None: of all of them) matched their CIDs when last
        checked. Raises TruthUnavailable."""
        name = _ALL if namespace is None else namespace
        async with self._checking:
            last = self._checked.get(name)
            if last is None or last.bad is not None or trio.current_time() - last.at_s >= _pause(last.took_s):
                last = self._checked[name] = await self._check(namespace)
                self._checked.move_to_end(name)
                while len(self._checked) > _NAMESPACES:
                    self._checked.popitem(last=False)
        if last.bad is not None:
            raise self._damaged(last.bad)

    def _damaged(self, cid: str) -> RecordDamaged:
        self._on_damage(cid)
        return RecordDamaged(
            f"{cid} is not what was stored under it: the disk has changed it. `engram miner verify` names all such"
            " records; delete them and store them again, or put a backup in place"
        )

    async def _check(self, namespace: str | None) -> _Checked:
        began_s, after = trio.current_time(), 0
        while True:
            bad, following = await self._truth.read(functools.partial(_page, namespace=namespace, after=after))
            if bad is not None or following is None:
                now_s = trio.current_time()
                return _Checked(now_s, now_s - began_s, bad)
            after = following


def _pause(took_s: float) -> float:
    return max(_LEAST_BETWEEN_S, _SHARE * took_s)


def _page(connection: sqlite3.Connection, namespace: str | None, after: int) -> tuple[str | None, int | None]:
    """Return the first damaged record of a page, and where the next page begins; None for neither."""
    where, values = ("namespace = ? AND ", [namespace]) if namespace is not None else ("", [])
    rows = connection.execute(
        f"SELECT id, cid, embedding, metadata, model_version FROM records WHERE {where}id > ? ORDER BY id LIMIT ?",
        (*values, after, _PAGE),
    ).fetchall()
    bad = next((str(row[1]) for row in rows if cids.fault_of(*row[1:]) is not None), None)
    return bad, rows[-1][0] if len(rows) == _PAGE else None
