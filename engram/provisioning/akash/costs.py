"""What nodes cost, leases and fees, beside what their sessions are sold for.

Leases are paid in uact, which are worth micro-dollars; fees in uakt, whose worth is a setting.
"""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection

from engram.payments import records as payment_records
from engram.provisioning.akash import records, transactions
from engram.provisioning.akash.model import BLOCK_S, PICO, Deployment, DeploymentState
from engram.sessions import TERMINAL
from engram.sessions import records as session_records


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the node of one session cost so far, all its deployments together."""

    session_id: str
    price_usd_micros: int
    """What the session was sold for, extensions included."""
    refunded_usd_micros: int = 0
    """What of it goes back to the payer, or went."""
    cost_uact: int
    """Of its leases."""
    fees_uakt: int
    """Of the transactions that the chain took, failed ones too."""
    deployments: int
    is_final: bool
    """Whether the session is over, everything is closed and its cost read from the chain; else the cost is counted from
    the price a block."""

    @property
    def income_usd_micros(self) -> int:
        """What the session brought."""
        return self.price_usd_micros - self.refunded_usd_micros


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
    fees = transactions.fees(connection, [row.dseq for row in rows])
    refunded = payment_records.refunded_by_session(connection, list(by_session))
    found: list[Cost] = []
    for session_id, deployments in by_session.items():
        session = session_records.get(connection, session_id)
        found.append(
            Cost(
                session_id=session_id,
                price_usd_micros=0 if session is None else session.amount_usd_micros,
                refunded_usd_micros=refunded.get(session_id, 0),
                cost_uact=sum(spent_uact(row, now) for row in deployments),
                fees_uakt=sum(fees.get(row.dseq, 0) for row in deployments),
                deployments=len(deployments),
                is_final=(session is None or session.state in TERMINAL) and all(map(_is_final, deployments)),
            )
        )
    return found


def _is_final(row: Deployment) -> bool:
    return row.state is DeploymentState.CLOSED and row.cost_uact is not None


def margin(costs: Iterable[Cost], akt_usd: float) -> float | None:
    """Return which share of the income was not spent, of sessions that are over; None without any income.

    What was refunded is no income, and what its nodes cost was spent all the same.

    >>> one = Cost(
    ...     session_id="a", price_usd_micros=100_000, cost_uact=5_000, fees_uakt=30_000, deployments=1, is_final=True
    ... )
    >>> margin([one], akt_usd=1.0), margin([one], akt_usd=0.0)
    (0.65, 0.95)
    """
    over = [cost for cost in costs if cost.is_final and cost.price_usd_micros]
    income = sum(cost.income_usd_micros for cost in over)
    spent = sum(cost.cost_uact + cost.fees_uakt * akt_usd for cost in over)
    return None if income <= 0 else 1.0 - spent / income
