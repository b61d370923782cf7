"""Transactions in the ledger: each is written down, signed, before it is sent. Functions own no transaction.

open -> included   on chain, and took effect
     -> refused    on chain or at its door, and took no effect
     -> expired    certain never to be on chain
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import Connection, RowMapping, func, insert, select, update

from engram.provisioning.akash.tables import transactions


class Subject(StrEnum):
    """What a transaction is for."""

    CREATE = "create"
    LEASE = "lease"
    CLOSE = "close"
    DEPOSIT = "deposit"
    MINT = "mint"


class TxState(StrEnum):
    """What is known of a transaction."""

    OPEN = "open"
    INCLUDED = "included"
    REFUSED = "refused"
    EXPIRED = "expired"


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A signed transaction as the ledger holds it. Fees in uakt, amounts in uact."""

    hash: bytes
    subject: Subject
    dseq: int | None
    raw: bytes
    timeout_ns: int
    """Block time (unix nanoseconds) from which it is certain not to come; of an ordered one only a unique number."""
    timeout_height: int | None = None
    sequence: int | None = None
    state: TxState = TxState.OPEN
    code: int | None = None
    codespace: str | None = None
    log: str | None = None
    height: int | None = None
    gas_limit: int
    gas_used: int | None = None
    fee_uakt: int
    amount_uact: int = 0
    created_at: float
    settled_at: float | None = None

    @property
    def name(self) -> str:
        """The hash as the chain writes it."""
        return self.hash.hex().upper()


def add(connection: Connection, outgoing: Outgoing) -> None:
    """Commit to a transaction before it is sent."""
    columns = msgspec.structs.asdict(outgoing)
    columns["subject"], columns["state"] = str(outgoing.subject), str(outgoing.state)
    connection.execute(insert(transactions).values(columns))


def settle(connection: Connection, after: Outgoing) -> bool:
    """Write down what became of it; False when that is written down already."""
    settled = connection.execute(
        update(transactions)
        .where(transactions.c.hash == after.hash, transactions.c.state == str(TxState.OPEN))
        .values(
            state=str(after.state),
            code=after.code,
            codespace=after.codespace,
            log=after.log,
            height=after.height,
            gas_used=after.gas_used,
            settled_at=after.settled_at,
        )
    )
    return settled.rowcount == 1


def get(connection: Connection, tx_hash: bytes) -> Outgoing | None:
    """Return the transaction of that hash."""
    row = connection.execute(select(transactions).where(transactions.c.hash == tx_hash)).mappings().first()
    return None if row is None else _outgoing(row)


def latest(connection: Connection, dseq: int | None, subject: Subject) -> Outgoing | None:
    """Return the newest transaction of that kind for the deployment; None: of those that are for none, as mints are."""
    query = (
        select(transactions)
        .where(transactions.c.dseq == dseq, transactions.c.subject == str(subject))
        .order_by(transactions.c.created_at.desc(), transactions.c.timeout_ns.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else _outgoing(row)


def open_ones(connection: Connection, subject: Subject) -> list[Outgoing]:
    """Return every transaction of that kind whose outcome is not known, oldest first."""
    query = (
        select(transactions)
        .where(transactions.c.state == "open", transactions.c.subject == str(subject))
        .order_by(transactions.c.created_at)
    )
    return [_outgoing(row) for row in connection.execute(query).mappings()]


def is_ordered_open(connection: Connection, since: float) -> bool:
    """Return whether an ordered transaction made after `since` (unix seconds) is under way, of any gateway."""
    query = select(transactions.c.hash).where(
        transactions.c.state == "open", transactions.c.sequence.is_not(None), transactions.c.created_at > since
    )
    return connection.execute(query.limit(1)).first() is not None


def of_deployment(connection: Connection, dseq: int | None) -> list[Outgoing]:
    """Return the deployment's transactions, oldest first."""
    query = select(transactions).where(transactions.c.dseq == dseq).order_by(transactions.c.created_at)
    return [_outgoing(row) for row in connection.execute(query).mappings()]


def fees(connection: Connection, dseqs: Sequence[int]) -> dict[int, int]:
    """Return what each deployment's transactions cost, uakt: the chain takes the fee of each that is in a block."""
    found: dict[int, int] = {}
    for first in range(0, len(dseqs), 500):
        query = (
            select(transactions.c.dseq, func.sum(transactions.c.fee_uakt))
            .where(transactions.c.dseq.in_(dseqs[first : first + 500]), transactions.c.height.is_not(None))
            .group_by(transactions.c.dseq)
        )
        found |= {row[0]: int(row[1]) for row in connection.execute(query)}
    return found


def _outgoing(row: RowMapping) -> Outgoing:
    return Outgoing(**{**row, "subject": Subject(row["subject"]), "state": TxState(row["state"])})
