"""The relay's outbox (waiting, delivered and dead letters) in streams, the log of its attempts, and what was signed."""

from sqlalchemy import Index, Integer, LargeBinary, Text, UniqueConstraint, text

from engram.ledger.sql import REAL, Column, Table, metadata

relay_streams = Table(
    "relay_streams",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("netuid", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # memory | scores
    Column("signer", Text, nullable=False),  # ss58
    Column("next_seq", Integer, nullable=False),
    Column("pending", Integer, nullable=False),  # entries that wait or are being sent
    Column("parked", Integer, nullable=False),  # dead letters
    Column("next_attempt_at", REAL, nullable=False),  # of the entry that is next
    Column("last_ok_at", REAL),
    Column("last_ok_hash", Text),
    UniqueConstraint("netuid", "kind", "signer"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_relay_streams_due", relay_streams.c.next_attempt_at, sqlite_where=relay_streams.c.pending > text("0"))

relay_counts = Table(
    "relay_counts",
    metadata,
    Column("name", Text, primary_key=True),  # of entries by state, and of attempts: streams.py
    Column("value", Integer, nullable=False),
    sqlite_strict=True,
)

relay_signatures = Table(
    "relay_signatures",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("source", Text, primary_key=True),  # tells payloads of one block apart; empty for validators
    Column("signer", Text, primary_key=True),
    Column("output_hash", Text, nullable=False),  # the only one that is ever signed for these
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

relay_outbox = Table(
    "relay_outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # memory | scores | gap
    Column("nonce", Text, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # JSON as it was learned
    Column("signed", LargeBinary),  # the same, signed before the first attempt; every attempt sends these bytes
    Column("signed_hash", Text),  # hex; the idempotency key
    Column("state", Text, nullable=False),  # pending | sending | delivered | abandoned | discarded | withdrawn
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", REAL, nullable=False),
    Column("last_reason", Text),
    Column("created_at", REAL, nullable=False),
    Column("updated_at", REAL, nullable=False),
    Column("stream_id", Integer, nullable=False, server_default="0"),
    Column("seq", Integer, nullable=False, server_default="0"),  # order within the stream; a gap marker has its entry's
    Column("block_hash", LargeBinary),  # of `block`, as it was when the payload was learned
    Column("anchor_id", Integer),  # of the anchor whose root has its output_hash as a leaf
    UniqueConstraint("stream_id", "kind", "nonce"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_relay_outbox_stream", relay_outbox.c.stream_id, relay_outbox.c.state, relay_outbox.c.seq)
Index(
    "ix_relay_outbox_over",
    relay_outbox.c.updated_at,
    sqlite_where=text("state IN ('delivered', 'discarded', 'withdrawn')"),
)

relay_log = Table(
    "relay_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("outbox_id", Integer, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("block", Integer, nullable=False),
    Column("status", Text, nullable=False),  # ok | http_NNN | error (nothing was sent) | unknown (sent, no answer)
    Column("http_status", Integer),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
)
Index("ix_relay_log_outbox_id", relay_log.c.outbox_id, relay_log.c.id)
Index("ix_relay_log_at", relay_log.c.at)

relay_candidates = Table(
    "relay_candidates",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),  # scores | ranking
    Column("epoch", Integer, primary_key=True),  # of `block`; alone, of the weights
    Column("block", Integer, nullable=False),
    Column("block_hash", LargeBinary, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("output_hash", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # JSON, unsigned
    Column("signed", LargeBinary),  # the same, signed when it is proposed
    Column("signed_hash", Text),
    Column("cosignatures", Text, nullable=False),  # JSON: hotkey and signature of each validator that has signed
    Column("state", Text, nullable=False),  # waiting | proposed | bundled | settled | withdrawn | missed | short
    Column("reason", Text),
    Column("created_at", REAL, nullable=False),
    Column("updated_at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

relay_bundles = Table(
    "relay_bundles",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("block", Integer, nullable=False),
    Column("proposer", Text, nullable=False),  # ss58
    Column("output_hash", Text, nullable=False),
    Column("signed_hash", Text, nullable=False),
    Column("signers", Integer, nullable=False),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

relay_evidence = Table(
    "relay_evidence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", REAL, nullable=False),
    Column("netuid", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("proposer", Text, nullable=False),  # ss58
    Column("judge", Text, nullable=False),  # ss58 of the validator that refused to sign
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("differences", Text, nullable=False),  # JSON: the values that differ
    Column("output_hash", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),  # the signed payload as it was proposed
    Column("kind", Text, nullable=False, server_default="scores"),
    UniqueConstraint("proposer", "judge", "output_hash", "verdict"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_relay_evidence_at", relay_evidence.c.at)

relay_anchors = Table(
    "relay_anchors",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("netuid", Integer, nullable=False),
    Column("signer", Text, nullable=False),  # ss58
    Column("epoch", Integer, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("leaves", Text, nullable=False),  # JSON: kind and output_hash of each
    Column("state", Text, nullable=False),  # intended | committed
    Column("sent_until_block", Integer, nullable=False),  # last block that may include the extrinsic; 0: never sent
    Column("committed_block", Integer),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_relay_anchors_state", relay_anchors.c.netuid, relay_anchors.c.signer, relay_anchors.c.state)

relay_unanchored = Table(
    "relay_unanchored",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("signer", Text, primary_key=True),  # ss58; a row only while nothing that it relays can be anchored
    Column("reason", Text, nullable=False),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
