"""Shares of namespace keys, kept for the owners who split them: one share for each namespace and owner."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.errors import InvalidRequest, MemoryAreaError, QuotaExceeded

MAX_SHARE_HEX = 8_192
MAX_SHARES_OF_AN_OWNER = 256
MAX_SHARES = 100_000
"""The most shares that all owners other than the node's controller may store together."""
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")


class ShareExists(MemoryAreaError):
    """A different share is stored for this namespace already."""


class KeptShare(msgspec.Struct, frozen=True):
    """One of `total` shares, any `threshold` of which give the key."""

    share_index: int
    share_hex: str
    threshold: int
    total: int


def check_share(body: Mapping[str, object]) -> KeptShare:
    """Read a share. Raises InvalidRequest saying which field is wrong."""
    numbers: list[int] = []
    for name, least in (("share_index", 1), ("threshold", 2), ("total", 2)):
        value = body.get(name)
        if type(value) is not int or not least <= value <= 255:
            raise InvalidRequest(f"{name} must be a whole number from {least} to 255.")
        numbers.append(value)
    index, threshold, total = numbers
    if threshold > total or index > total:
        raise InvalidRequest("share_index and threshold must not be above total.")
    text = body.get("share_hex")
    if not isinstance(text, str) or len(text) > MAX_SHARE_HEX or _HEX.match(text) is None:
        raise InvalidRequest(f"share_hex must be pairs of hex digits, at most {MAX_SHARE_HEX} in all.")
    return KeptShare(index, text, threshold, total)


def room_for(owner: str, controller: str) -> int:
    """Return the number of shares at which the node takes no more from `owner`; the controller has room of its own."""
    return MAX_SHARES + MAX_SHARES_OF_AN_OWNER if owner == controller else MAX_SHARES


def put(connection: sqlite3.Connection, owner: str, namespace: str, share: KeptShare, now: float, room: int) -> None:
    """Store a share; storing the same one again is harmless. Raises ShareExists for a different one, QuotaExceeded when
    there are `room` already, or too many of the owner's."""
    there = get(connection, owner, namespace)
    if there == share:
        return
    if there is not None:
        raise ShareExists('Another share is kept for this namespace; send "replace": true to replace it.')
    of_all, of_owner = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE owner = ?) FROM key_shares", (owner,)
    ).fetchone()
    if of_all >= room or of_owner >= MAX_SHARES_OF_AN_OWNER:
        raise QuotaExceeded("This node keeps no more key shares.")
    _insert(connection, owner, namespace, share, now)


def replace(
    connection: sqlite3.Connection, owner: str, namespace: str, share: KeptShare, now: float, room: int
) -> None:
    """Replace the stored share. Raises QuotaExceeded as `put` does."""
    connection.execute("DELETE FROM key_shares WHERE owner = ? AND namespace = ?", (owner, namespace))
    put(connection, owner, namespace, share, now, room)


def get(connection: sqlite3.Connection, owner: str, namespace: str) -> KeptShare | None:
    """Return the share stored for an owner's namespace."""
    row = connection.execute(
        "SELECT share_index, share_hex, threshold, total FROM key_shares WHERE owner = ? AND namespace = ?",
        (owner, namespace),
    ).fetchone()
    return None if row is None else KeptShare(*row)


def _insert(connection: sqlite3.Connection, owner: str, namespace: str, share: KeptShare, now: float) -> None:
    connection.execute(
        "INSERT INTO key_shares (owner, namespace, share_index, share_hex, threshold, total, stored_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, namespace, share.share_index, share.share_hex, share.threshold, share.total, now),
    )
