"""The order of a node that serves, read from what the ledger holds of its session."""

from collections.abc import Mapping

from sqlalchemy import Connection

from engram.provisioning import records
from engram.provisioning.akash.model import Deployment
from engram.provisioning.model import NodeSpec
from engram.sessions import Tier, TierName
from engram.sessions import records as session_records


def served_spec(connection: Connection, row: Deployment, tiers: Mapping[TierName, Tier]) -> NodeSpec | None:
    """Return the order of the node that the deployment runs, with the end that is known now; None when its session or
    its node is over."""
    session = session_records.get(connection, row.session_id)
    node = records.by_token(connection, row.token)
    if session is None or node is None or node.hotkey is None or node.gone_at is not None:
        return None
    return NodeSpec(
        token=row.token,
        session_id=session.id,
        tier=tiers[session.tier],
        controller=session.controller,
        hotkey=node.hotkey,
        hotkey_file="",
        port=None,
        ends_at=row.ends_at,
    )
