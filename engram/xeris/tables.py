"""What a receiver accepted, and who held a validator permit at which block."""

from sqlalchemy import Index, Integer, LargeBinary, Text, UniqueConstraint, text

from engram.ledger.sql import REAL, Column, Table, metadata

accepted = Table(
    "xeris_accepted",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # scores | memory | ranking | gap | anchor
    Column("nonce", Text, nullable=False),
    Column("netuid", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("signer", LargeBinary, nullable=False),
    Column("signers", Integer, nullable=False),  # distinct keys, co-signers too
    Column("output_hash", Text, nullable=False),
    Column("signed_hash", Text, nullable=False),
    Column("round_ts", REAL, nullable=False),
    Column("document", LargeBinary, nullable=False),  # as it came
    Column("acknowledgement", LargeBinary, nullable=False),  # the signed answer, given again for a repeat
    Column("received_at", REAL, nullable=False),
    Column("anchor_id", Integer),  # the anchor whose root has its output_hash as a leaf
    Column("leaf", Integer),  # its place among the leaves
    Column("overdue", Integer, nullable=False, server_default="0"),  # 1: not anchored in time; 2: its signer cannot
    UniqueConstraint("netuid", "kind", "nonce", "signer"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_xeris_accepted_newest", accepted.c.netuid, accepted.c.kind, accepted.c.id)
Index("ix_xeris_accepted_signer", accepted.c.signer, accepted.c.netuid, accepted.c.kind, accepted.c.block)
Index("ix_xeris_accepted_received", accepted.c.received_at)
Index("ix_xeris_accepted_hash", accepted.c.signed_hash)
Index(
    "ix_xeris_accepted_output",
    accepted.c.signer,
    accepted.c.netuid,
    accepted.c.kind,
    accepted.c.output_hash,
    accepted.c.anchor_id,
)

submissions = Table(
    "xeris_submissions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", REAL, nullable=False),
    Column("verdict", Text, nullable=False),  # accepted | repeated | the code of a refusal
    # What the payload says of itself, which nothing has verified where it was refused; empty or null: it says nothing.
    Column("signer", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("netuid", Integer),
    Column("block", Integer),
    Column("signed_hash", Text, nullable=False),
    Column("reason", Text, nullable=False),  # of a refusal
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_xeris_submissions_at", submissions.c.at)
Index(
    "ix_xeris_accepted_unanchored",
    accepted.c.netuid,
    accepted.c.block,
    sqlite_where=text("anchor_id IS NULL AND overdue = 0"),
)

Index("ix_xeris_accepted_overdue", accepted.c.kind, sqlite_where=text("anchor_id IS NULL AND overdue = 1"))

anchors = Table(
    "xeris_anchors",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("netuid", Integer, nullable=False),
    Column("signer", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),  # of the stream that is anchored
    Column("epoch", Integer, nullable=False),
    Column("block", Integer, nullable=False),  # of the commitment
    Column("root", LargeBinary, nullable=False),
    Column("leaves", Text, nullable=False),  # JSON: output hashes under the root
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_xeris_anchors_at", anchors.c.at)
Index("ix_xeris_anchors_root", anchors.c.signer, anchors.c.netuid, anchors.c.kind, anchors.c.root)

signatures = Table(
    "xeris_signatures",
    metadata,
    Column("signer", LargeBinary, primary_key=True),  # of an accepted payload, co-signers too
    Column("netuid", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("source", Text, primary_key=True),  # empty where a block has one output, whoever proposed it
    Column("output_hash", Text, nullable=False),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
Index("ix_xeris_signatures_at", signatures.c.at)

permits = Table(
    "xeris_permits",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("block", Integer, primary_key=True),  # the permits hold from here to until_block
    Column("until_block", Integer, nullable=False),  # the newest block known to have them without a gap
    Column("holders", LargeBinary, nullable=False),  # 32 bytes each, in order
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
