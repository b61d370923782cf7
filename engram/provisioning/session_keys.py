"""The session keys that nodes have shown, and what the ledger knows of a launch when one is shown."""

from collections.abc import Collection
from typing import Final

import msgspec
from sqlalchemy import Connection, insert, select, update

from engram.hotkeys import PublicKey
from engram.hotkeys.node_identity import Introduction
from engram.provisioning import node_keys, records
from engram.provisioning.enrollment_rules import KEYS_WITHIN_S, Expected
from engram.provisioning.fleet import END_GRACE_S
from engram.provisioning.model import NodeKey, NodeState
from engram.provisioning.tables import node_session_keys, nodes
from engram.sessions import RUNNING, Instant, RunningSession, SessionState
from engram.sessions import records as session_records
from engram.sessions import rules as session_rules

GIVEN: Final = frozenset({"local"})
"""The backends whose nodes are given their hotkey, unless the settings name more."""


class Launch(msgspec.Struct, frozen=True):
    """A launch that may be certified."""

    expected: Expected
    key: NodeKey
    """Where its hotkey is."""
    certified_until: float | None
    is_running: bool


def launch(
    connection: Connection, token: str, now: Instant, start_s: float, given: Collection[str] = GIVEN
) -> Launch | None:
    """Return the launch of that token; None when it is over, or its session serves nobody any more.

    `start_s` is how long a node may take to start: until it serves, its session's time has not begun. `given` are the
    backends whose nodes have their hotkey: nothing else is believed of them.
    """
    node = records.by_token(connection, token)
    if node is None or node.state is NodeState.GONE:
        return None
    session, key = session_records.get(connection, node.session_id), node_keys.leased(connection, node.session_id)
    if session is None or key is None or key.public_key != node.hotkey:
        return None
    is_running = session.state in RUNNING
    if not is_running and session.state is not SessionState.PROVISIONING:
        return None
    serves_until = session_rules.expires_at(session, now) + (0.0 if is_running else start_s)
    shown = connection.execute(
        select(node_session_keys).where(node_session_keys.c.token == token).order_by(node_session_keys.c.number)
    ).mappings()
    rows = list(shown)
    expected = Expected(
        session_id=session.id,
        token=token,
        hotkey=key.public_key,
        controller=session.controller,
        keys=tuple(row["session_key"] for row in rows),
        recent_keys=sum(row["shown_at"] > now.wall - KEYS_WITHIN_S for row in rows),
        has_hotkey=node.backend in given,
        serves_until=serves_until,
        ends_at=serves_until + END_GRACE_S,
    )
    return Launch(expected, key, rows[-1]["certified_until"] if rows else None, is_running)


def note(connection: Connection, introduction: Introduction, number: int, certified_until: float, at: float) -> bool:
    """Commit that a certificate of this key is issued, before it is sent; `number` counts the keys of the launch.

    False when another key took that number meanwhile, or the key is that of another launch: whoever runs two nodes
    may show the key of one as the other's.
    """
    token, key = introduction.launch_token, introduction.key
    same = node_session_keys.c.session_key == key
    if connection.execute(select(node_session_keys.c.token).where(same)).scalar_one_or_none() not in (None, token):
        return False
    mine = node_session_keys.c.token == token, node_session_keys.c.number == number
    known = connection.execute(select(node_session_keys.c.session_key).where(*mine)).scalar_one_or_none()
    if known is None:
        connection.execute(
            insert(node_session_keys).values(
                token=token,
                number=number,
                session_key=key,
                box_key=introduction.box_key,
                shown_at=at,
                certified_until=certified_until,
            )
        )
        return True
    connection.execute(
        update(node_session_keys)
        .where(*mine, node_session_keys.c.session_key == key)
        .values(certified_until=certified_until)
    )
    return bool(known == key)


def holder(connection: Connection, key: PublicKey) -> str | None:
    """Return the token of the launch whose key in use this is."""
    newer = node_session_keys.alias()
    query = select(node_session_keys.c.token).where(
        node_session_keys.c.session_key == key,
        ~select(newer.c.number)
        .where(newer.c.token == node_session_keys.c.token, newer.c.number > node_session_keys.c.number)
        .exists(),
    )
    return connection.execute(query).scalar_one_or_none()


def certified(connection: Connection) -> list[RunningSession]:
    """Return every active session whose node signs by a session key."""
    with_keys = set(
        connection.execute(
            select(node_session_keys.c.token)
            .join(nodes, nodes.c.token == node_session_keys.c.token)
            .where(nodes.c.state != str(NodeState.GONE))
        ).scalars()
    )
    return [
        one
        for one in session_records.list_running(connection)
        if one.state is SessionState.ACTIVE and one.endpoint and one.token in with_keys
    ]


def certified_with_keys(connection: Connection) -> list[tuple[RunningSession, NodeKey]]:
    """Return the same with the hotkeys of their nodes."""
    found = [(one, node_keys.leased(connection, one.session_id)) for one in certified(connection)]
    return [(session, key) for session, key in found if key is not None]
