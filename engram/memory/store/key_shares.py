"""Shares of a namespace's key, kept for whoever split it: one a namespace and owner. What a share hides is not here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from engram.durable.driver import sqlite3
from engram.memory.errors import InvalidRequest, MemoryAreaError, QuotaExceeded

MAX_SHARE_HEX = 8_192
MAX_SHARES_OF_AN_OWNER = 256
MAX_SHARES = 100_000
"""That others than the node's controller may leave in all."""
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")


class ShareExists(MemoryAreaError):
    """Another share is kept for this namespace already."""


class Share(msgspec.Struct, frozen=True):
    """One of `total` shares, any `threshold` of which give the key."""

    share_index: int
    share_hex: str
    threshold: int
    total: int


def check_share(body: Mapping[str, object]) -> Share:
    """Reads a share. Raises InvalidRequest saying which field is wrong."""
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
    return Share(index, text, threshold, total)


def room_for(owner: str, controller: str) -> int:
    """Returns how many shares there may be for one of `owner` to be kept: the controller's room nobody else takes."""
    return MAX_SHARES + MAX_SHARES_OF_AN_OWNER if owner == controller else MAX_SHARES


def put(connection: sqlite3.Connection, owner: str, namespace: str, share: Share, now: float, room: int) -> None:
    """Keeps a share; the same again is harmless. Raises ShareExists for another one, QuotaExceeded when there are
    `room` already, or too many of the owner's."""
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


def replace(connection: sqlite3.Connection, owner: str, namespace: str, share: Share, now: float, room: int) -> None:
    """Keeps a share in the place of the one that is there. Raises QuotaExceeded as `put` does."""
    connection.execute("DELETE FROM key_shares WHERE owner = ? AND namespace = ?", (owner, namespace))
    put(connection, owner, namespace, share, now, room)


def get(connection: sqlite3.Connection, owner: str, namespace: str) -> Share | None:
    """Returns the share that is kept for an owner's namespace."""
    row = connection.execute(
        "SELECT share_index, share_hex, threshold, total FROM key_shares WHERE owner = ? AND namespace = ?",
        (owner, namespace),
    ).fetchone()
    return None if row is None else Share(*row)


def _insert(connection: sqlite3.Connection, owner: str, namespace: str, share: Share, now: float) -> None:
    connection.execute(
        "INSERT INTO key_shares (owner, namespace, share_index, share_hex, threshold, total, stored_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, namespace, share.share_index, share.share_hex, share.threshold, share.total, now),
    )
