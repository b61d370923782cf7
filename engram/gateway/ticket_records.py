"""What the ledger knows of tickets. Functions are called inside `ledger.write` or `ledger.read`.

A row of a lineage is made when its ticket opens a stream, and is kept for as long as a token of it may be good. One
that is dropped earlier, for the bound of its session, takes its renewals with it: its ticket has ended by then.
"""

import secrets
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from engram.gateway.tables import ticket_lineages, ticket_requests
from engram.gateway.tickets import LIFETIME_S, RENEWAL_S, SECRET_BYTES, StreamToken, may_open, write
from engram.ledger import facts
from engram.ledger.sql import Column, upsert

OF_ONE_SESSION: Final = 64
"""Lineages kept for a session; beyond this the one that was opened least recently is dropped."""
KEPT_S: Final = 3 * RENEWAL_S
"""A stream lives for RENEWAL_S at most, and its last renewal for as long after; the rest is for clocks that differ."""
REQUESTS_KEPT_S: Final = 3_600.0
"""A used request is kept for this long after its own time, for a clock that is set back."""
_SIGNS: Final = "ticket_secret"
_DROPPED_AT_ONCE: Final = 100


class Lineage(msgspec.Struct):
    """What a stream knows of the lineage that opened it."""

    number: int
    session_id: str
    issued: int
    """The newest generation that this stream has issued, or that opened it."""
    opening: int
    """Which opening of the lineage it is; a stream is over when there was a later one."""


def secret(connection: Connection) -> bytes | None:
    """Return the secret that tokens are signed with; None before the first ticket."""
    found = facts.get(connection, _SIGNS)
    return None if found is None else bytes.fromhex(found)


def issue(
    connection: Connection, session_id: str, request: bytes | None, expires_at: float, now_s: float
) -> str | None:
    """Return a new ticket, None when the same request got one before.

    `request` identifies the signed request, which is good until `expires_at`; None: it was not signed.
    """
    signs_with = secret(connection)
    if signs_with is None:
        signs_with = secrets.token_bytes(SECRET_BYTES)
        facts.put(connection, _SIGNS, signs_with.hex())
    if request is not None:
        _drop(connection, ticket_requests.c.request, ticket_requests.c.forget_at < now_s)
        values = {"request": request, "forget_at": expires_at + REQUESTS_KEPT_S}
        noted = upsert(ticket_requests).values(values).on_conflict_do_nothing().returning(ticket_requests.c.forget_at)
        if connection.execute(noted).first() is None:
            return None
    return write(StreamToken(secrets.randbits(63), session_id, 0, int(now_s) + LIFETIME_S), signs_with)


def opens(connection: Connection, token: StreamToken) -> bool:
    """Return whether a token would open a stream now; it is not used up."""
    return may_open(token.generation, _opened(connection, token.lineage))


def open_stream(connection: Connection, token: StreamToken, now_s: float) -> Lineage | None:
    """Use a token; return its lineage, whose earlier streams are over. None when it opens none (any more)."""
    if not opens(connection, token):
        return None
    if token.generation == 0:
        if not _make_room(connection, token.session_id, now_s):
            return None
        made = Lineage(token.lineage, token.session_id, 0, 1)
        values = {"number": made.number, "session_id": made.session_id, "opened": 0, "openings": 1, "opened_at": now_s}
        connection.execute(insert(ticket_lineages).values(values))
        return made
    here = ticket_lineages.c.number == token.lineage
    change = {"opened": token.generation, "openings": ticket_lineages.c.openings + 1, "opened_at": now_s}
    connection.execute(update(ticket_lineages).where(here).values(change))
    openings = connection.execute(select(ticket_lineages.c.openings).where(here)).scalar_one()
    return Lineage(token.lineage, token.session_id, token.generation, openings)


def is_over(connection: Connection, lineage: Lineage) -> bool:
    """Return whether the stream has been replaced by a later one of its lineage."""
    query = select(ticket_lineages.c.openings).where(ticket_lineages.c.number == lineage.number)
    found = connection.execute(query).scalar_one_or_none()
    return found is not None and found != lineage.opening


def renew(lineage: Lineage, signs_with: bytes, now_s: float) -> str:
    """Return the next renewal of a lineage."""
    lineage.issued += 1
    token = StreamToken(lineage.number, lineage.session_id, lineage.issued, int(now_s) + RENEWAL_S)
    return write(token, signs_with)


def _opened(connection: Connection, number: int) -> int | None:
    query = select(ticket_lineages.c.opened).where(ticket_lineages.c.number == number)
    return connection.execute(query).scalar_one_or_none()


def _make_room(connection: Connection, session_id: str, now_s: float) -> bool:
    """Drop what is of no more use; False when the session's lineages are all too young to be dropped."""
    of = ticket_lineages.c
    _drop(connection, of.number, of.opened_at < now_s - KEPT_S)
    held = connection.execute(select(func.count()).where(of.session_id == session_id)).scalar_one()
    if held < OF_ONE_SESSION:
        return True
    oldest = select(of.number).where(of.session_id == session_id).order_by(of.opened_at).limit(1).scalar_subquery()
    too_young = of.opened_at >= now_s - LIFETIME_S  # its ticket would open once more
    return connection.execute(delete(ticket_lineages).where(of.number == oldest, ~too_young)).rowcount == 1


def _drop(connection: Connection, key: Column[Any], old: ColumnElement[bool]) -> None:
    some = select(key).where(old).limit(_DROPPED_AT_ONCE).scalar_subquery()
    connection.execute(delete(key.table).where(key.in_(some)))
