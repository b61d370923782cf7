"""How many sessions are in each state: rows that the transactions keep which add, move or drop a session.

A purchase reads these few rows instead of all that hold a place. Functions are called inside `ledger.write` or
`ledger.read` and own no transaction.
"""

import msgspec
from sqlalchemy import Connection, bindparam, case, func, literal_column, select, update

from engram.ledger import LaneClosed, Ledger, Prepared, lookup
from engram.ledger.sql import one_of
from engram.sessions.model import HELD, LIVE, SessionState
from engram.sessions.tables import session_counts, sessions

_MOVE = Prepared(
    update(session_counts)
    .where(session_counts.c.state.in_([bindparam("was"), bindparam("becomes")]))
    .values(
        sessions=session_counts.c.sessions
        + case((session_counts.c.state == bindparam("becomes"), literal_column("1")), else_=literal_column("-1"))
    )
)
_HELD = select(func.sum(session_counts.c.sessions)).where(one_of(session_counts.c.state, HELD)).scalar_subquery()
_LIVE = (
    select(func.count())
    .where(sessions.c.controller == bindparam("controller"), one_of(sessions.c.state, LIVE))
    .scalar_subquery()
)
_FOUND = select(func.count()).where(sessions.c.state == session_counts.c.state).scalar_subquery()
_TAKEN = Prepared(select(_LIVE, _HELD))


class _Taken(msgspec.Struct, frozen=True, array_like=True):
    live: int
    held: int


_LOOKUP = lookup(_Taken, [_LIVE.label("live"), _HELD.label("held")], [session_counts.c.state])


def move(connection: Connection, was: SessionState | None, becomes: SessionState | None) -> None:
    """Count a session that goes from one state to another; None: it is added, or dropped."""
    if was is not becomes:
        _MOVE.apply(connection, {"was": was and was.value, "becomes": becomes and becomes.value})


def taken(connection: Connection, controller: bytes) -> tuple[int, int]:
    """Return the live sessions of a hotkey, and all sessions that hold a place."""
    live, places = _TAKEN.values(connection, {"controller": controller}) or (0, 0)
    return live, places


def look(ledger: Ledger, controller: bytes) -> tuple[int, int]:
    """Return the same, read on the event loop. Raises LaneClosed."""
    found = ledger.rows(_LOOKUP, controller, SessionState.ACTIVE.value)
    if not found:
        raise LaneClosed("no session was ever counted")
    return found[0].live, found[0].held


def held(connection: Connection) -> int:
    """Sessions that hold a place: all that are not over."""
    places: int = connection.execute(select(_HELD)).scalar_one()
    return places


def by_state(connection: Connection) -> dict[SessionState, int]:
    """How many sessions are in each state that has any."""
    query = select(session_counts.c.state, session_counts.c.sessions).where(session_counts.c.sessions != 0)
    return {SessionState(state): count for state, count in connection.execute(query)}


def scan(connection: Connection) -> dict[SessionState, int]:
    """Return the same, by reading the index of all sessions."""
    query = select(sessions.c.state, func.count()).group_by(sessions.c.state)
    return {SessionState(state): count for state, count in connection.execute(query)}


def wrong(connection: Connection) -> dict[SessionState, tuple[int, int]]:
    """Return the states whose count differs from a scan; both, the count first. One statement sees one moment."""
    both = select(session_counts, _FOUND).where(session_counts.c.sessions != _FOUND)
    return {SessionState(state): (counted, found) for state, counted, found in connection.execute(both)}


def problems(connection: Connection) -> list[str]:
    """Return what is `wrong`, for the operator."""
    return [
        f"the count of {state} sessions is {counted}, and there are {found}: the gateway corrects it when it starts"
        for state, (counted, found) in wrong(connection).items()
    ]


def recount(connection: Connection) -> dict[SessionState, tuple[int, int]]:
    """Correct the counts that are `wrong`, which are returned: the file was changed by other hands."""
    differences = wrong(connection)
    for state, (_, found) in differences.items():
        connection.execute(update(session_counts).where(session_counts.c.state == state.value).values(sessions=found))
    return differences
