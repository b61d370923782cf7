"""Nodes in the ledger. Functions are called inside `ledger.write` or `ledger.read` and own no transaction."""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, insert, literal_column, select, update

from engram.ledger import facts, owners
from engram.ledger.sql import OWNER
from engram.provisioning.errors import NoCapacity, OtherBackend
from engram.provisioning.model import NodeRecord, NodeState
from engram.provisioning.placement import Sold
from engram.provisioning.rules import Facts
from engram.provisioning.tables import NODE, node_session_keys, nodes
from engram.sessions import Session
from engram.sessions import records as session_records

_GONE = str(NodeState.GONE)
_LIVE = nodes.c.state != literal_column(f"'{NodeState.GONE}'")
"""Written as the partial index has it, so that SQLite reads the living nodes alone."""


def new_token(connection: Connection, suffix: str) -> str:
    """Return a node token of this ledger; `suffix` (random hex) makes it unique."""
    return f"{facts.ledger_id(connection)}-{suffix}"


def is_ours(token: str, ledger_id: str) -> bool:
    """Return whether the token was made by the ledger of that id."""
    return bool(ledger_id) and token.startswith(f"{ledger_id}-")


def facts_of(connection: Connection, session_id: str) -> tuple[Session, NodeRecord | None, Facts] | None:
    """Return the session, its node that is not gone, and both as its saga sees them; None when there is no session."""
    session = session_records.get(connection, session_id)
    if session is None:
        return None
    node = live_node(connection, session_id)
    return session, node, Facts(session.state, node is not None, session.launch_attempts)


def live_node(connection: Connection, session_id: str) -> NodeRecord | None:
    """Return the session's node that is not gone; there is at most one."""
    query = select(*NODE).where(nodes.c.session_id == session_id, _LIVE).order_by(nodes.c.created_at.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _record(row)


def by_token(connection: Connection, token: str) -> NodeRecord | None:
    """Return the node of that token, gone or not."""
    row = connection.execute(select(*NODE).where(nodes.c.token == token)).mappings().first()
    return None if row is None else _record(row)


def insert_launching(connection: Connection, node: NodeRecord) -> None:
    """Commit to a launch before it is made."""
    columns = msgspec.structs.asdict(node)
    columns |= {"state": str(node.state), OWNER: owners.me(connection)}
    connection.execute(insert(nodes).values(columns))


def allocate_port(connection: Connection, first: int, count: int, taken: Collection[int] = ()) -> int:
    """Return a port in [first, first + count) that no node holds and that is not `taken`.

    The one after the last given comes first: going round keeps a port unused for long after its node has gone.
    Raises NoCapacity when all are held.
    """
    held = set(connection.execute(select(nodes.c.port).where(_LIVE, nodes.c.port.is_not(None))).scalars())
    in_range = nodes.c.port.between(first, first + count - 1)
    query = select(nodes.c.port).where(in_range).order_by(nodes.c.created_at.desc()).limit(1)
    last = connection.execute(query).scalar_one_or_none()
    start = 0 if last is None else last - first + 1
    for step in range(count):
        port = first + (start + step) % count
        if port not in held and port not in taken:
            return port
    raise NoCapacity(f"all ports from {first} to {first + count - 1} are held")


def mark_running(connection: Connection, token: str, reference: str) -> bool:
    """Note that the node serves; False when it is gone already."""
    marked = connection.execute(
        update(nodes).where(nodes.c.token == token, _LIVE).values(state=str(NodeState.RUNNING), reference=reference)
    )
    return marked.rowcount == 1


def mark_gone(connection: Connection, token: str, at: float) -> None:
    """Note that nothing of the node is left; its port is free, its session keys are forgotten."""
    connection.execute(delete(node_session_keys).where(node_session_keys.c.token == token))
    connection.execute(update(nodes).where(nodes.c.token == token, _LIVE).values(state=_GONE, gone_at=at))


def live_backends(connection: Connection) -> dict[str, str]:
    """Return the backend of each node that is not gone, by token."""
    return dict(connection.execute(select(nodes.c.token, nodes.c.backend).where(_LIVE)).all())


def own_tokens(connection: Connection) -> set[str]:
    """Return the nodes of this process that are not gone."""
    query = select(nodes.c.token).where(_LIVE, nodes.c[OWNER] == owners.me(connection))
    return set(connection.execute(query).scalars())


def require_backends(connection: Connection, names: Collection[str]) -> None:
    """Raise OtherBackend when nodes of a backend that is not in `names` are not gone: nobody here could end them."""
    others = select(nodes.c.backend, func.count()).where(_LIVE, nodes.c.backend.not_in(names)).group_by(nodes.c.backend)
    found = connection.execute(others).first()
    if found is not None:
        here = " and ".join(map(repr, names))
        raise OtherBackend(
            f"{found[1]} nodes of backend {found[0]!r} are alive and {here} cannot end them; add {found[0]!r} to"
            " provisioning.backends until their sessions are over (engram selling off, engram sessions stop), or set"
            " data_dir to another folder"
        )


def open_work(connection: Connection, limit: int = 500) -> list[tuple[str, int]]:
    """Ids of this process's sessions that a saga must bring further, oldest first, and how often their saga crashed.

    They are being provisioned or stopped, or are over with a node left. Quarantined ones are left out.
    """
    crashes = session_records.crashes_when_over(nodes.c.session_id)
    mine = nodes.c[OWNER] == owners.me(connection)
    left_over = select(nodes.c.session_id, crashes).where(_LIVE, mine, crashes.is_not(None)).limit(limit)
    return [
        *session_records.list_unfinished(connection, limit),
        *((session_id, crashed) for session_id, crashed in connection.execute(left_over)),
    ]


def count_by_backend(connection: Connection) -> dict[str, int]:
    """How many nodes of each backend are not gone."""
    living = select(nodes.c.backend, func.count()).where(_LIVE).group_by(nodes.c.backend)
    return dict(connection.execute(living).all())


def sold(connection: Connection) -> list[Sold]:
    """Return every session that is to have a node, with the backend of that node where it is planned."""
    backends = dict(connection.execute(select(nodes.c.session_id, nodes.c.backend).where(_LIVE)).all())
    return [
        Sold(session_id, tier, seconds, backends.get(session_id))
        for session_id, tier, seconds in session_records.list_served(connection)
    ]


def given_up(connection: Connection, session_id: str) -> dict[str, int]:
    """How many nodes of the session are gone, by backend."""
    query = (
        select(nodes.c.backend, func.count())
        .where(nodes.c.session_id == session_id, nodes.c.state == _GONE)
        .group_by(nodes.c.backend)
    )
    return dict(connection.execute(query).all())


def _record(row: RowMapping) -> NodeRecord:
    return NodeRecord(**{**row, "state": NodeState(row["state"])})
