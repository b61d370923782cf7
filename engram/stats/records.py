"""Which sessions are polled."""

from sqlalchemy import Connection, select

from engram.ledger.schema import sessions
from engram.sessions import RUNNING, SessionState
from engram.stats.model import Target


def targets(connection: Connection) -> list[Target]:
    """Return every running session that has a node."""
    query = select(sessions.c.id, sessions.c.node_endpoint, sessions.c.state, sessions.c.node_hotkey).where(
        sessions.c.state.in_(sorted(RUNNING)), sessions.c.node_endpoint.is_not(None)
    )
    degraded = str(SessionState.DEGRADED)
    return [Target(one, endpoint, state == degraded, key) for one, endpoint, state, key in connection.execute(query)]
