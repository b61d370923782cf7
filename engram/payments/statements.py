"""The SQL that every purchase runs, built once and prepared: building costs four times what running does, and running
by SQLAlchemy three times what SQLite takes."""

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, bindparam, func, insert, literal_column, select, update

from engram.ledger import Prepared, lookup
from engram.ledger.sql import OWNER, one_of, upsert
from engram.payments import rules
from engram.payments.tables import PAYMENT, answered_requests, payments, refunds


def _count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.count()).where(*conditions).scalar_subquery()


PAYMENT_BY_ID = Prepared(select(*PAYMENT).where(payments.c.id == bindparam("id")))
PAYMENT_BY_AUTHORIZATION = Prepared(
    select(*PAYMENT).where(
        payments.c.network == bindparam("network"),
        payments.c.asset == bindparam("asset"),
        payments.c.payer == bindparam("payer"),
        payments.c.nonce == bindparam("nonce"),
    )
)
_DUE = payments.c.next_attempt_at <= bindparam("now")
_DUE_PAYMENT = (
    select(payments.c.id, payments.c.state).where(payments.c[OWNER] == bindparam("owner")).limit(bindparam("most"))
)
PAYMENTS_AT_ONCE = _DUE_PAYMENT.where(one_of(payments.c.state, map(str, rules.AT_ONCE)), _DUE)
"""Those whose buyers wait."""
_GIVEN_UP = one_of(payments.c.state.concat(""), map(str, rules.GIVEN_UP))
"""Not by the index of states: the one of what is due gives the order as well."""
PAYMENTS_DUE = _DUE_PAYMENT.where(_DUE, ~_GIVEN_UP).order_by(payments.c.next_attempt_at)
GIVEN_UP_DUE = _DUE_PAYMENT.where(_DUE, _GIVEN_UP).order_by(payments.c.next_attempt_at)
"""Anybody can make any number of these without money, so that all others go first."""
PAYMENTS_TOO_LATE = _DUE_PAYMENT.where(
    payments.c.next_attempt_at > bindparam("now") + 2 * rules.RETRY_MAX_S  # the clock was set back
).order_by(payments.c.next_attempt_at)
"""A query of its own: joined to the others by `or`, it would have all of them sorted each time."""
IN_TURN = (PAYMENTS_AT_ONCE, PAYMENTS_TOO_LATE, PAYMENTS_DUE, GIVEN_UP_DUE)
"""In the order in which they are worked on."""
PAYMENT_BY_IDENTIFIER = Prepared(
    select(payments.c.id).where(
        payments.c.controller == bindparam("controller"),
        payments.c.identifier == bindparam("identifier"),
        payments.c.state.not_in([literal_column("'rejected'"), literal_column("'void'")]),
    )
)
"""The payment of a hotkey that a payment-identifier stands for."""
INSERT_PAYMENT = Prepared(insert(payments))
PROGRESS = frozenset(
    {
        "state",
        "reason",
        "transaction_hash",
        "attempts",
        "next_attempt_at",
        "crashes",
        "quarantined_at",
        "updated_at",
        "settled_at",
    }
)
"""Columns that change while a payment is worked on; what was bought, by whom and for what stays."""


def _update(columns: Collection[str]) -> Prepared:
    """Compare-and-set: `row` is the id, `was` the state it must have, the rest are the columns."""
    same = update(payments).where(payments.c.id == bindparam("row"), payments.c.state == bindparam("was"))
    return Prepared(same.values({column: bindparam(column.name) for column in payments.c if column.name in columns}))


UPDATE_PAYMENT = _update(PROGRESS)
"""Naming a column that stays would have SQLite write its index anew, and the payload with it."""
REPLACE_PAYMENT = _update({column.name for column in payments.c} - {"id"})
"""For a payment that begins again."""

REFUNDS_OF = select(refunds).where(refunds.c.payment_id == bindparam("payment_id")).order_by(refunds.c.number)

_OPEN = one_of(payments.c.state, map(str, rules.OPEN))
OPEN_PAYMENTS = Prepared(
    select(
        _count(payments.c.payer == bindparam("payer"), _OPEN),
        _count(payments.c.controller == bindparam("controller"), _OPEN),
        _count(payments.c.client_address == bindparam("client_address"), _OPEN),
    )
)
"""How many are open of a payer, of a hotkey, from an address."""
OPEN_OF_HOTKEY = (
    select(payments.c.id)
    .where(payments.c.controller == bindparam("controller"), _OPEN)
    .order_by(payments.c.created_at.desc())
    .limit(20)
)
ANSWERED_REQUEST = Prepared(
    select(answered_requests.c.payment_id, answered_requests.c.request_hash).where(
        answered_requests.c.public_key == bindparam("public_key"),
        answered_requests.c.message_hash == bindparam("message_hash"),
    )
)


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """The payment that a signed request was answered with."""

    payment_id: str


LOOK_ANSWERED = lookup(
    Answered, [answered_requests.c.payment_id], [answered_requests.c.public_key, answered_requests.c.message_hash]
)
_REMEMBER = upsert(answered_requests)
REMEMBER_REQUEST = Prepared(
    _REMEMBER.on_conflict_do_update(
        index_elements=["public_key", "message_hash"],
        set_={name: _REMEMBER.excluded[name] for name in ("request_hash", "payment_id", "at")},
    )
)
