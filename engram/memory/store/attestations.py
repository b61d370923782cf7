"""Attestations: which hotkey backs a namespace with its stake. The first hotkey to attest a namespace keeps it."""

from __future__ import annotations

import contextlib
from typing import final

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.errors import MemoryAreaError, QuotaExceeded, TruthUnavailable, WriteUnknown
from engram.memory.store.notebook_db import Notebook

MAX_ATTESTATIONS = 10_000
"""Attestations by others than the node's controller, which has as much room again."""
_TIERS = ((1_000.0, "sovereign"), (100.0, "verified"), (1.0, "community"))
ANONYMOUS = "anonymous"


class AttestedByAnother(MemoryAreaError):
    """Another key attests this namespace already."""


class Attestation(msgspec.Struct, frozen=True):
    """`owner` is a public key, `attested_at` unix seconds of the newest signature."""

    namespace: str
    owner: bytes
    attested_at: float


def tier(stake_tao: float | None) -> str:
    """Return the tier of a stake; an unknown one, or none, is anonymous.

    >>> [tier(stake) for stake in (None, 0.5, 1, 99.9, 100, 1_000)]
    ['anonymous', 'anonymous', 'community', 'community', 'verified', 'sovereign']
    """
    return next((name for least, name in _TIERS if stake_tao is not None and stake_tao >= least), ANONYMOUS)


def room_for(owner: bytes, controller: bytes) -> int:
    """Return the number of attestations at which the node takes no new one from `owner`."""
    return 2 * MAX_ATTESTATIONS if owner == controller else MAX_ATTESTATIONS


@final
class Attestations:
    """Keeps all attestations in memory; each is on disk before it counts. Call `load` once before use."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._held: dict[str, Attestation] = {}

    async def load(self) -> None:
        """Read them from disk. Raises TruthUnavailable."""
        self._held = {held.namespace: held for held in await self._notebook.read(_all)}

    def get(self, namespace: str) -> Attestation | None:
        """Return the attestation of the namespace, or None."""
        return self._held.get(namespace)

    async def put(self, made: Attestation, room: int = MAX_ATTESTATIONS) -> None:
        """Store an attestation; a new one only while there are fewer than `room`.

        Raises AttestedByAnother, QuotaExceeded, TruthUnavailable, WriteUnknown.
        """
        try:
            await self._notebook.write(lambda connection: _put(connection, made, room))
        except WriteUnknown:
            with contextlib.suppress(TruthUnavailable):
                await self.load()  # the disk is right, whatever became of the commit
            raise
        self._held[made.namespace] = made


def _all(connection: sqlite3.Connection) -> list[Attestation]:
    return [Attestation(*row) for row in connection.execute("SELECT namespace, owner, attested_at FROM attestations")]


def _put(connection: sqlite3.Connection, made: Attestation, room: int) -> None:
    row = connection.execute("SELECT owner FROM attestations WHERE namespace = ?", (made.namespace,)).fetchone()
    if row is not None and row[0] != made.owner:
        raise AttestedByAnother("Another key stands for this namespace.")
    if row is None and connection.execute("SELECT count(*) FROM attestations").fetchone()[0] >= room:
        raise QuotaExceeded("This node keeps no more attestations.")
    connection.execute(
        "INSERT INTO attestations (namespace, owner, attested_at) VALUES (?, ?, ?)"
        " ON CONFLICT (namespace) DO UPDATE SET attested_at = excluded.attested_at",
        (made.namespace, made.owner, made.attested_at),
    )
