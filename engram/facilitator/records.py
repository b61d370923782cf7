"""The books: balances and used nonces. Functions are called inside `ledger.write` or `ledger.read`."""

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from engram.facilitator import rules
from engram.facilitator.model import SettledTransfer
from engram.facilitator.tables import play_accounts, play_authorizations
from engram.ledger.sql import upsert
from engram.payments.model import Authorization

# Built once: building a statement costs four times what running it does.
_BALANCE = select(play_accounts.c.balance).where(play_accounts.c.address == bindparam("of"))
_OPEN_ACCOUNT = upsert(play_accounts).on_conflict_do_nothing()
_CHANGE_BALANCE = (
    update(play_accounts)
    .where(play_accounts.c.address == bindparam("of"))
    .values(balance=play_accounts.c.balance + bindparam("change"))
)
_USED = select(play_authorizations).where(
    play_authorizations.c.payer == bindparam("of"), play_authorizations.c.nonce == bindparam("under")
)
_USE = insert(play_authorizations)


def balance(connection: Connection, address: bytes, opening: int) -> int:
    """Atomic units that `address` owns; `opening` when the books have not seen it."""
    value = connection.execute(_BALANCE, {"of": address}).scalar_one_or_none()
    return opening if value is None else int(value)


def give(connection: Connection, address: bytes, units: int, *, below: int, opening: int) -> int:
    """Give play money to an address that owns less than `below`; return the atomic units that it owns then."""
    if balance(connection, address, opening) < below:
        _move(connection, address, units, opening)
    return balance(connection, address, opening)


def used(connection: Connection, payer: bytes, nonce: bytes) -> SettledTransfer | None:
    """Return what was settled under this nonce."""
    row = connection.execute(_USED, {"of": payer, "under": nonce}).first()
    return None if row is None else SettledTransfer(row.payer, row.nonce, row.pay_to, row.amount, row.transaction_hash)


def refused(connection: Connection, authorization: Authorization, now: float, opening: int) -> str | None:
    """Why the books would refuse the (otherwise valid) authorization at `now`, or None."""
    if used(connection, authorization.payer, authorization.nonce) is not None:
        return rules.NONCE_USED
    reason = rules.refused_now(authorization, now)
    if reason is None and balance(connection, authorization.payer, opening) < authorization.value:
        return rules.NO_FUNDS
    return reason


def settle(connection: Connection, authorization: Authorization, now: float, opening: int) -> SettledTransfer | str:
    """Move the money once. Returns the transfer, now or of before; or the reason why not (nothing is written)."""
    earlier = used(connection, authorization.payer, authorization.nonce)
    if earlier is not None:
        return earlier if rules.is_same(earlier, authorization) else rules.NONCE_USED
    reason = refused(connection, authorization, now, opening)
    if reason is not None:
        return reason
    transfer = SettledTransfer(
        authorization.payer,
        authorization.nonce,
        authorization.pay_to,
        authorization.value,
        rules.transaction_hash(authorization),
    )
    for address, change in ((transfer.payer, -transfer.amount), (transfer.pay_to, transfer.amount)):
        _move(connection, address, change, opening)
    connection.execute(_USE, msgspec.structs.asdict(transfer) | {"at": now})
    return transfer


def _move(connection: Connection, address: bytes, change: int, opening: int) -> None:
    connection.execute(_OPEN_ACCOUNT, {"address": address, "balance": opening})
    connection.execute(_CHANGE_BALANCE, {"of": address, "change": change})
