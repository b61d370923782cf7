"""Prepaid units, by the account that uses them: bought by a payment of kind `credit`, used one by one."""

from sqlalchemy import Connection, bindparam, literal_column, select, update

from engram.ledger import Prepared
from engram.ledger.sql import upsert
from engram.payments.tables import payment_credits

_added = upsert(payment_credits)
_ADD = Prepared(
    _added.on_conflict_do_update(
        index_elements=["account"],
        set_={
            "units": payment_credits.c.units + _added.excluded.units,
            "bought": payment_credits.c.bought + _added.excluded.bought,
            "updated_at": _added.excluded.updated_at,
        },
    )
)
_LEFT = Prepared(select(payment_credits.c.units).where(payment_credits.c.account == bindparam("of")))
_USE = Prepared(
    update(payment_credits)
    .where(payment_credits.c.account == bindparam("of"), payment_credits.c.units > literal_column("0"))
    .values(units=payment_credits.c.units - literal_column("1"), updated_at=bindparam("now"))
)


def add(connection: Connection, account: bytes, units: int, now: float) -> None:
    """Add units that were paid for; a negative number takes back what is not paid after all."""
    _ADD.apply(connection, {"account": account, "units": units, "bought": units, "updated_at": now})


def left(connection: Connection, account: bytes) -> int:
    """Return how many units the account has left."""
    found = _LEFT.values(connection, {"of": account})
    return 0 if found is None else int(found[0])


def use(connection: Connection, account: bytes, now: float) -> bool:
    """Use one unit; False when none is left."""
    return _USE.change(connection, {"of": account, "now": now}) == 1
