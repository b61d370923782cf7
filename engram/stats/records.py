"""Which sessions are polled."""

from sqlalchemy import Connection

from engram.sessions import SessionState
from engram.sessions import records as session_records
from engram.stats.model import PollTarget


def targets(connection: Connection) -> list[PollTarget]:
    """Return every running session that has a node."""
    return [
        PollTarget(one.session_id, one.endpoint, one.state is SessionState.DEGRADED, one.hotkey)
        for one in session_records.list_running(connection)
        if one.endpoint
    ]
