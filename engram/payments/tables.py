"""Payments by x402, their refunds, and the signed requests that were already answered."""

from sqlalchemy import Index, Integer, LargeBinary, PrimaryKeyConstraint, Text

from engram.ledger.sql import OWNER, REAL, Column, Table, metadata, owner_column

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("kind", Text, nullable=False),  # session | extension
    Column("session_id", Text, nullable=False),
    Column("controller", LargeBinary, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),  # sha256 over method, raw path, controller, body
    # The canonical authorization: what makes a payment one payment.
    Column("network", Text, nullable=False),  # CAIP-2
    Column("asset", LargeBinary, nullable=False),
    Column("payer", LargeBinary, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("pay_to", LargeBinary, nullable=False),
    Column("amount", Integer, nullable=False),  # atomic units
    Column("valid_after", Integer, nullable=False),
    Column("valid_before", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # x402 v2 PaymentPayload, JSON, re-sent unchanged
    Column("requirements", LargeBinary, nullable=False),  # our own requirements, JSON
    Column("seconds", REAL, nullable=False),  # what it buys
    Column("client_address", Text, nullable=False),
    Column("reason", Text),  # of a rejection, as the facilitator or our checks named it
    Column("transaction_hash", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", REAL),  # null: nothing is to be done, or the operator has to
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("quarantined_at", REAL),
    Column("created_at", REAL, nullable=False),
    Column("updated_at", REAL, nullable=False),
    Column("settled_at", REAL),
    Column("identifier", Text),  # x402's payment-identifier, as the buyer chose it
    owner_column(),
    info={"open": "next_attempt_at IS NOT NULL", "due": "next_attempt_at"},
    sqlite_strict=True,
)
PAYMENT = [column for column in payments.c if column.name != OWNER]
"""What a payment is, without who works it."""
Index(
    "uq_payments_authorization",
    payments.c.network,
    payments.c.asset,
    payments.c.payer,
    payments.c.nonce,
    unique=True,
)
Index("ix_payments_session", payments.c.session_id)
Index("ix_payments_state", payments.c.state)
Index("ix_payments_due", payments.c.next_attempt_at, sqlite_where=payments.c.next_attempt_at.is_not(None))
# Open payments of one payer, hotkey and client address are counted for each new one.
Index("ix_payments_payer", payments.c.payer, payments.c.state)
Index("ix_payments_controller", payments.c.controller, payments.c.state)
Index("ix_payments_client", payments.c.client_address, payments.c.state)
Index("ix_payments_created", payments.c.created_at)
Index(
    "ix_payments_identifier",
    payments.c.controller,
    payments.c.identifier,
    sqlite_where=payments.c.identifier.is_not(None),
)

refunds = Table(
    "refunds",
    metadata,
    Column("payment_id", Text, nullable=False),
    Column("number", Integer, nullable=False),  # 1, 2, …: a payment may be refunded in parts
    Column("state", Text, nullable=False),  # due | refunding | refunded
    Column("address", LargeBinary, nullable=False),  # the payer, frozen
    Column("amount", Integer, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("transaction_hash", Text),
    Column("created_at", REAL, nullable=False),
    Column("updated_at", REAL, nullable=False),
    # What was signed last, re-sent unchanged; null until it is signed.
    Column("sender", LargeBinary),  # address of the refund key
    Column("payload", LargeBinary),  # x402 v2 PaymentPayload, JSON
    Column("requirements", LargeBinary),
    Column("valid_before", Integer),
    Column("signed_at", REAL),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("answer", Text),  # why it is not sent yet, or the last answer
    PrimaryKeyConstraint("payment_id", "number"),
    sqlite_strict=True,
)

payment_credits = Table(
    "payment_credits",
    metadata,
    Column("account", LargeBinary, primary_key=True),  # public key of the hotkey that uses them
    Column("units", Integer, nullable=False),  # left; below zero where a used one was taken back
    Column("bought", Integer, nullable=False),
    Column("updated_at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

answered_requests = Table(
    "answered_requests",
    metadata,
    Column("public_key", LargeBinary, nullable=False),
    Column("message_hash", LargeBinary, nullable=False),  # sha256 of the signed message
    Column("request_hash", LargeBinary, nullable=False),
    Column("payment_id", Text, nullable=False),
    Column("at", REAL, nullable=False),
    PrimaryKeyConstraint("public_key", "message_hash"),
    sqlite_strict=True,
)
Index("ix_answered_requests_at", answered_requests.c.at)
