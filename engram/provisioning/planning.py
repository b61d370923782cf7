"""The plan of a launch: which backend, port and key. One transaction, committed before anything is started."""

from collections.abc import Callable, Collection, Sequence

import msgspec
from sqlalchemy import Connection

from config.model import Placement
from engram.provisioning import node_keys, placement, records
from engram.provisioning.errors import NoCapacity
from engram.provisioning.model import NodeKey, NodeRecord, NodeState, Offers
from engram.provisioning.placement import Standing
from engram.sessions import Session, SessionState, history
from engram.sessions import records as session_records

_PLANNED_FOR = (SessionState.PROVISIONING, SessionState.DEGRADED)


class Plan(msgspec.Struct, frozen=True):
    """A launch that is committed to."""

    session: Session
    node: NodeRecord
    key: NodeKey


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is made of."""

    rule: Placement
    standings: Sequence[Standing]
    taken_ports: Collection[int]
    token: str
    """Random hex."""
    at: float
    """Unix time."""
    has_key: Callable[[NodeKey], bool] = lambda key: True
    """Whether this machine has a key's file."""


def plan(connection: Connection, session_id: str, choice: Choice) -> Plan | None:
    """Commit to a launch: a node row, a port and a key held, one attempt more.

    None when the session needs no node, or has one. Raises NoCapacity when no key is free, or no backend that answers
    has a place and a port left.
    """
    session = session_records.get(connection, session_id)
    if session is None or session.state not in _PLANNED_FOR or records.live_node(connection, session_id) is not None:
        return None
    key = node_keys.lease(connection, session_id, session.controller, choice.at, choice.has_key)
    if key is None:
        raise NoCapacity("no node key is free")
    held, given_up = records.count_by_backend(connection), records.given_up(connection, session_id)
    seconds = session.paid_s - session.used_s
    ranked = placement.ranked(choice.rule, choice.standings, held, session.tier, given_up, seconds)
    backend, port = _first_with_a_port(connection, ranked, choice.taken_ports)
    node = NodeRecord(
        token=records.new_token(connection, choice.token),
        session_id=session_id,
        backend=backend,
        state=NodeState.LAUNCHING,
        port=port,
        reference=None,
        hotkey=key.public_key,
        created_at=choice.at,
    )
    records.insert_launching(connection, node)
    session_records.set_launch_attempts(connection, session_id, session.launch_attempts + 1)
    session_records.set_node(connection, session_id, node.token, None, key.public_key)
    history.append_event(connection, session_id, choice.at, history.PLANNED, {})
    return Plan(session, node, key)


def withdraw(connection: Connection, node: NodeRecord, at: float) -> None:
    """Undo the plan of a launch that was never sent: nothing was tried, and its port is free."""
    records.mark_gone(connection, node.token, at)
    session = session_records.get(connection, node.session_id)
    if session is not None:
        session_records.set_launch_attempts(connection, node.session_id, session.launch_attempts - 1)


def _first_with_a_port(
    connection: Connection, ranked: Sequence[Offers], taken: Collection[int]
) -> tuple[str, int | None]:
    full = NoCapacity("no backend that answers has a place left")
    for offers in ranked:
        if offers.first_port is None:
            return offers.backend, None
        try:
            return offers.backend, records.allocate_port(connection, offers.first_port, offers.port_count, taken)
        except NoCapacity as error:
            full = error
    raise full
