"""What leases cost, beside what their sessions are sold for. Amounts in uact, which are worth micro-dollars."""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection

from engram.provisioning.akash import records
from engram.provisioning.akash.model import BLOCK_S, PICO, Deployment, DeploymentState
from engram.sessions import records as session_records


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the node of one session cost so far, all its deployments together."""

    session_id: str
    price_usd_micros: int
    """What the session was sold for, extensions included."""
    cost_uact: int
    deployments: int
    is_final: bool
    """Whether everything is closed and its cost read from the chain; else it is counted from the price a block."""


def spent_uact(row: Deployment, now: float) -> int:
    """Return what a deployment cost: as the chain says once it is closed, else counted from its price."""
    if row.cost_uact is not None:
        return row.cost_uact
    if row.price is None:
        return 0
    until = row.closed_at if row.state is DeploymentState.CLOSED and row.closed_at is not None else now
    return int(row.price * max(0.0, until - row.created_at) / BLOCK_S / PICO)


def of_sessions(connection: Connection, now: float, since: float) -> list[Cost]:
    """Return the costs of sessions whose deployments are alive or were closed since then, newest first."""
    rows = [*records.all_live(connection), *records.list_closed(connection, since)]
    by_session: dict[str, list[Deployment]] = {}
    for row in rows:
        by_session.setdefault(row.session_id, []).append(row)
    found: list[Cost] = []
    for session_id, deployments in by_session.items():
        session = session_records.get(connection, session_id)
        found.append(
            Cost(
                session_id=session_id,
                price_usd_micros=0 if session is None else session.amount_usd_micros,
                cost_uact=sum(spent_uact(row, now) for row in deployments),
                deployments=len(deployments),
                is_final=all(_is_final(row) for row in deployments),
            )
        )
    return found


def _is_final(row: Deployment) -> bool:
    return row.state is DeploymentState.CLOSED and row.cost_uact is not None


def margin(costs: Sequence[Cost] | Iterable[Cost]) -> float | None:
    """Return which share of the price is not spent on leases, of sessions that are over; None without any.

    >>> margin([Cost(session_id="a", price_usd_micros=100_000, cost_uact=5_000, deployments=1, is_final=True)])
    0.95
    """
    over = [cost for cost in costs if cost.is_final and cost.price_usd_micros]
    price = sum(cost.price_usd_micros for cost in over)
    return None if not price else 1.0 - sum(cost.cost_uact for cost in over) / price
