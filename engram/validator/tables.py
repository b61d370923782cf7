"""The validator's facts: miners by hotkey, rounds and their questions, planted records, weights that were sent."""

from sqlalchemy import Index, Integer, LargeBinary, Text

from engram.ledger.sql import REAL, Column, Table, metadata

miners = Table(
    "validator_miners",
    metadata,
    Column("hotkey", LargeBinary, primary_key=True),  # 32 bytes; a new hotkey on an old uid starts clean
    Column("uid", Integer, nullable=False),  # when last seen
    Column("ema", REAL, nullable=False, server_default="0"),
    Column("rounds", Integer, nullable=False, server_default="0"),
    Column("reputation", REAL, nullable=False, server_default="0"),
    Column("challenges", Integer, nullable=False, server_default="0"),  # since the last slash; see standing.py
    Column("proved", Integer, nullable=False, server_default="0"),
    Column("slashes", Integer, nullable=False, server_default="0"),
    Column("slashed_until_block", Integer),
    Column("registered_only", Integer, nullable=False, server_default="0"),  # 1: takes registered keys only
    Column("lengths", Text),  # JSON: lengths of its customers' public texts, in characters
    Column("updated_at", REAL, nullable=False),
    sqlite_strict=True,
)

signers = Table(
    "validator_signers",
    metadata,
    Column("public_key", LargeBinary, primary_key=True),
    Column("seed", LargeBinary, nullable=False),  # 32 bytes: a throw-away key, good for planted records alone
    Column("hotkey", LargeBinary, nullable=False),  # of the one miner that sees it
    Column("records_left", Integer, nullable=False),
    Column("mean_gap_s", REAL, nullable=False),
    Column("created_at", REAL, nullable=False),
    sqlite_strict=True,
)
Index("ix_validator_signers_hotkey", signers.c.hotkey)

families = Table(
    "validator_families",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("hotkey", LargeBinary, nullable=False),
    Column("matter", Text, nullable=False),  # JSON of corpus.Family
    Column("until_round", Integer, nullable=False),  # nothing new is planted about it from then on
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_validator_families_hotkey", families.c.hotkey)

planted = Table(
    "validator_planted",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("hotkey", LargeBinary, nullable=False),
    Column("family_id", Integer, nullable=False),
    Column("signer", LargeBinary, nullable=False),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary),  # f32 little-endian; null while drafted
    Column("cid", Text),
    Column("state", Text, nullable=False),  # drafted | ready | sending | held | refused | deleting | deleted | lost
    Column("plant_at", REAL, nullable=False),
    Column("planted_round", Integer, nullable=False),
    Column("delete_round", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("reason", Text),
    Column("updated_at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_validator_planted_hotkey", planted.c.hotkey, planted.c.state)
Index("ix_validator_planted_state", planted.c.state, planted.c.plant_at)

rounds = Table(
    "validator_rounds",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("netuid", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("block_hash", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),  # open | closed | abandoned
    Column("boot", Text, nullable=False),  # id of the process's start: a round counts for weights of its own start only
    Column("opened_at", REAL, nullable=False),
    Column("closed_at", REAL),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

round_miners = Table(
    "validator_round_miners",
    metadata,
    Column("round_id", Integer, primary_key=True),
    Column("hotkey", LargeBinary, primary_key=True),
    Column("uid", Integer, nullable=False),
    Column("coldkey", LargeBinary, nullable=False),
    Column("url", Text),  # null: none that may be asked; `reason` says why
    Column("reason", Text),
    Column("done", Integer, nullable=False, server_default="0"),  # 1: answers are in, or their time is over
    Column("recall", REAL),
    Column("latency_ms", REAL),
    Column("proof_rate", REAL),
    Column("score", REAL),  # of this round, before sharing
    Column("shared_score", REAL),
    Column("group_of", Integer),  # uids that share a score have the lowest of them here
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

questions = Table(
    "validator_questions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("round_id", Integer, nullable=False),
    Column("hotkey", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),  # query | challenge
    Column("family_id", Integer),
    Column("text", Text),
    Column("vector", LargeBinary),
    Column("truth", Text, nullable=False),  # JSON: CIDs, nearest first (query), or the one CID (challenge)
    Column("planted", Integer, nullable=False),  # how many of them are planted
    Column("own_key", Integer, nullable=False),  # 1: signed by the validator's hotkey, 0: by a signer of its own
    Column("outcome", Text),  # null: not asked; a word of model.Outcome
    Column("recall", REAL),
    Column("proved", Integer),
    Column("latency_ms", REAL),
    Column("detail", Text),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_validator_questions_round", questions.c.round_id, questions.c.hotkey)

weights_sent = Table(
    "validator_weights",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("netuid", Integer, nullable=False),
    Column("hotkey", LargeBinary, nullable=False),  # the validator's own
    Column("epoch", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("round_id", Integer, nullable=False),
    Column("weights", Text, nullable=False),  # JSON {uid: weight}, adds up to 1
    Column("state", Text, nullable=False),  # intent | set | refused | lost | unknown | dry_run
    Column("reason", Text),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)
Index("ix_validator_weights_epoch", weights_sent.c.netuid, weights_sent.c.hotkey, weights_sent.c.epoch)

looks = Table(
    "validator_looks",
    metadata,
    Column("netuid", Integer, primary_key=True),
    Column("hotkey", LargeBinary, primary_key=True),  # the validator's own
    Column("verdict", Text, nullable=False),  # of due.py
    Column("detail", Text, nullable=False),
    Column("warnings", Text, nullable=False),  # JSON
    Column("block", Integer),
    Column("uid", Integer),
    Column("at", REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
