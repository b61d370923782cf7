"""Cursors of listings: encrypted positions that reveal nothing but where a page ended.

A record's number counts everything that the node ever stored, also private records of others, so it is never shown. A
cursor is the number and the namespace's digest, encrypted as one block under a key of this truth. It survives restarts,
deletions and inserts; it is refused for another namespace and after a restore.
"""

from __future__ import annotations

import hashlib
from typing import final

from Crypto.Cipher import AES

from engram.memory.errors import InvalidRequest

_HEX_DIGITS = 32


@final
class Cursors:
    """Makes and reads the cursors of one truth."""

    def __init__(self, truth_id: str) -> None:
        """`truth_id` is random and known only to the operator."""
        self._key = hashlib.sha256(b"engram-list-cursor:" + truth_id.encode()).digest()

    def __repr__(self) -> str:
        return "Cursors()"

    def of(self, namespace: str, number: int) -> str:
        """Return the cursor behind record `number` of a namespace (its name in the store)."""
        block = number.to_bytes(8) + _digest(namespace)
        return AES.new(self._key, AES.MODE_ECB).encrypt(block).hex()

    def read(self, namespace: str, cursor: str) -> int:
        """Return the number that a cursor stands for; 0 for an empty one. Raises InvalidRequest."""
        if not cursor:
            return 0
        try:
            block = bytes.fromhex(cursor) if len(cursor) == _HEX_DIGITS else b""
        except ValueError:
            block = b""
        if len(block) == _HEX_DIGITS // 2:
            opened = AES.new(self._key, AES.MODE_ECB).decrypt(block)
            if opened[8:] == _digest(namespace):
                return int.from_bytes(opened[:8])
        raise InvalidRequest("after is no cursor of this listing: begin again without it.")


def _digest(namespace: str) -> bytes:
    return hashlib.sha256(namespace.encode()).digest()[:8]
