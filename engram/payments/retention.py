"""What the ledger does not keep for ever: attempts to buy that moved no money. Anybody can make those without end.

An authorization that is forgotten has expired long before, so it can never be presented with success again.
Functions are called inside `ledger.write` and are bounded; call them again while they find as many as they may.
"""

from typing import Final

from sqlalchemy import Connection, delete, exists, or_, select

from engram import sessions
from engram.payments.model import PaymentState
from engram.payments.tables import answered_requests, payments, refunds

AT_ONCE: Final = 500
UNPAID_KEPT_S: Final = 86_400.0
"""How long buyers and the operator can still see what became of an attempt that moved no money."""
WATCHED_KEPT_S: Final = 30 * 86_400.0
"""How much longer an attempt is kept while the chain cannot be read to see that it moved nothing."""
_UNPAID: Final = (str(PaymentState.REJECTED), str(PaymentState.VOID))


def forget_unpaid(connection: Connection, before: float, limit: int = AT_ONCE) -> int:
    """Drop payments that are rejected or void since before `before` (unix seconds), with the sessions they never paid.

    Whatever was once settled, is owed back or in quarantine stays, so does a session with a node to destroy, and for
    WATCHED_KEPT_S what still has to be looked up on the chain.
    Returns how many payments were dropped, at most `limit`.
    """
    query = (
        select(payments.c.id, payments.c.session_id)
        .where(
            payments.c.state.in_(_UNPAID),
            payments.c.updated_at < before,
            payments.c.valid_before < before,
            payments.c.settled_at.is_(None),
            payments.c.transaction_hash.is_(None),
            payments.c.quarantined_at.is_(None),
            or_(payments.c.next_attempt_at.is_(None), payments.c.updated_at < before - WATCHED_KEPT_S),
            ~exists().where(refunds.c.payment_id == payments.c.id),
            ~sessions.records.is_unfinished(payments.c.session_id, payments.c.id),
        )
        .limit(limit)
    )
    found = connection.execute(query).all()
    if not found:
        return 0
    ids = [row.id for row in found]
    sessions.records.forget(connection, [row.session_id for row in found], ids)
    connection.execute(delete(answered_requests).where(answered_requests.c.payment_id.in_(ids)))
    connection.execute(delete(payments).where(payments.c.id.in_(ids)))
    return len(found)
