"""The tables on disk: as the version before made them, and as the areas describe them."""

import importlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import sqlalchemy

import engram
from engram.durable import connection
from engram.durable.driver import sqlite3
from engram.ledger import LedgerUnavailable, migrations, open_inline
from engram.ledger.backup import check
from engram.ledger.connection import LEDGER
from engram.ledger.migrations import MIGRATIONS
from engram.ledger.sql import metadata
from engram.relay import records as relay_records
from engram.relay.tables import relay_signatures

for module in Path(engram.__file__).parent.rglob("tables.py"):
    importlib.import_module(".".join(module.relative_to(Path(engram.__file__).parents[1]).with_suffix("").parts))

SCHEMA_2 = (Path(__file__).parent / "data" / "schema-2.sql").read_text(encoding="utf-8")
"""What commit fd04aaf made of a new ledger."""


def made(path: Path) -> dict[str, object]:
    """Each index of the file as it was written, each table as its columns in the order of their names."""
    with sqlite3.connect(path) as raw:
        found: dict[str, object] = {}
        rows = raw.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        for kind, name, sql in rows.fetchall():
            columns = sorted(row[1:] for row in raw.execute(f"PRAGMA table_xinfo({name})"))
            table = (columns, "STRICT" in sql, "AUTOINCREMENT" in sql)
            found[name] = table if kind == "table" else " ".join(sql.split())
    raw.close()
    return found


def former(path: Path, rows: str = "") -> Path:
    """A ledger of version 2; `rows` are statements that fill it."""
    with sqlite3.connect(path) as raw:
        raw.executescript(SCHEMA_2 + "INSERT INTO meta VALUES ('ledger_id', '01234567'); PRAGMA user_version = 2;")
        raw.executescript(rows)
    raw.close()
    return path


def test_what_a_new_ledger_has_is_what_the_areas_describe(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'described'}")
    metadata.create_all(engine)
    engine.dispose()
    assert made(tmp_path / "new") == made(tmp_path / "described")


def test_a_ledger_of_the_version_before_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    open_inline(former(tmp_path / "former")).close()
    assert made(tmp_path / "former") == made(tmp_path / "new")


def test_the_steps_so_far_changed_nothing_but_what_they_are_for(tmp_path: Path) -> None:
    open_inline(tmp_path / "new").close()
    before, after = made(former(tmp_path / "former")), made(tmp_path / "new")
    assert len(MIGRATIONS) == 28
    assert {name for name in before.keys() | after if before.get(name) != after.get(name)} == {
        "payments",
        "nodes",
        "session_counts",
        "ix_sessions_live",
        "sessions",
        "paid_clock",
        "singletons",
        "identity_transfers",
        "uq_identity_transfers_controller",
        "ix_identity_transfers_expires_at",
        "ticket_requests",
        "ix_ticket_requests_forget_at",
        "ticket_lineages",
        "ix_ticket_lineages_session_id_opened_at",
        "ix_ticket_lineages_opened_at",
        "ix_sessions_ends",
        "node_session_keys",
        "uq_node_session_keys_key",
        "akash_deployments",
        "ix_akash_deployments_closed",
        "ix_akash_deployments_token",
        "uq_akash_deployments_hash",
        "uq_akash_deployments_live_token",
        "akash_transactions",
        "ix_akash_transactions_dseq",
        "ix_akash_transactions_open",
        "akash_providers",
        "akash_mints",
        "validator_miners",
        "validator_signers",
        "ix_validator_signers_hotkey",
        "validator_families",
        "ix_validator_families_hotkey",
        "validator_planted",
        "ix_validator_planted_hotkey",
        "ix_validator_planted_state",
        "validator_rounds",
        "validator_round_miners",
        "validator_questions",
        "ix_validator_questions_round",
        "validator_weights",
        "ix_validator_weights_epoch",
        "validator_looks",
        "xeris_permits",
        "ix_xeris_accepted_signer",
        "ix_xeris_accepted_received",
        "ix_xeris_accepted_newest",
        "xeris_accepted",
        "ix_xeris_accepted_hash",
        "ix_xeris_accepted_output",
        "xeris_submissions",
        "ix_xeris_submissions_at",
        "payment_credits",
        "relay_streams",
        "ix_relay_streams_due",
        "relay_counts",
        "relay_signatures",
        "relay_candidates",
        "relay_bundles",
        "relay_evidence",
        "relay_unanchored",
        "xeris_signatures",
        "relay_anchors",
        "ix_relay_anchors_state",
        "xeris_anchors",
        "ix_xeris_anchors_at",
        "ix_xeris_anchors_root",
        "ix_xeris_accepted_unanchored",
        "ix_xeris_accepted_overdue",
        "ix_xeris_signatures_at",
        "ix_relay_evidence_at",
        "relay_outbox",
        "ix_relay_outbox_state",
        "ix_relay_outbox_stream",
        "ix_relay_outbox_over",
        "ix_relay_log_at",
        "proxy_jobs",
        "ix_proxy_jobs_idempotency",
        "ix_proxy_jobs_created",
        "ix_proxy_jobs_running",
        "worker_jobs",
        "ix_worker_jobs_open",
        "ix_worker_jobs_unacknowledged",
        "ix_worker_jobs_over",
    }


def test_a_disk_that_is_full_in_a_migration_keeps_the_program_from_starting_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = former(tmp_path / "ledger")
    pragmas = (*connection._WRITER_PRAGMAS, "max_page_count = 1")
    monkeypatch.setattr(connection, "_WRITER_PRAGMAS", pragmas)
    with pytest.raises(LedgerUnavailable, match="cannot be opened: database or disk is full"):
        open_inline(path)
    monkeypatch.undo()
    open_inline(path).close()
    assert check(path).problems == []


@pytest.mark.parametrize("step", [2, 3])
def test_a_migration_that_is_killed_goes_on_where_it_was(tmp_path: Path, step: int) -> None:
    path = former(tmp_path / "ledger")
    killed = f"""
import os
from pathlib import Path
from engram.ledger import migrations, connection
from engram.durable import connection as durable
steps = list(migrations.MIGRATIONS)
last = steps[{step}]
def kill(c):
    last(c)
    os.kill(os.getpid(), 9)
steps[{step}] = kill
import msgspec
durable.open_writer(msgspec.structs.replace(connection.LEDGER, migrations=tuple(steps)), Path({str(path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert check(path).schema_version == step
    open_inline(path).close()
    open_inline(tmp_path / "new").close()
    assert made(path) == made(tmp_path / "new")


def test_an_outbox_from_before_streams_goes_on_in_its_order_with_its_counts(tmp_path: Path) -> None:
    entry = (
        "INSERT INTO relay_outbox (kind, nonce, output_hash, block, payload, state, next_attempt_at, created_at,"
        " updated_at) VALUES ('{kind}', '{nonce}', 'h', {block}, CAST('{{\"netuid\": 450}}' AS BLOB), '{state}', 1,"
        " 1, 1);"
    )
    rows = "".join(
        entry.format(kind=kind, nonce=f"{number}", block=number, state=state)
        for number, (kind, state) in enumerate(
            [
                ("memory", "delivered"),
                ("memory", "abandoned"),
                ("memory", "pending"),
                ("scores", "pending"),
                ("memory", "pending"),
            ]
        )
    )
    log = "INSERT INTO relay_log (outbox_id, output_hash, block, status, at) VALUES (1, 'h', 0, 'ok', 1);"
    ledger = open_inline(former(tmp_path / "former", rows + log))
    found = ledger.write_now(relay_records.streams)
    assert [(stream.netuid, stream.kind, stream.pending, stream.parked) for stream in found] == [
        (450, "memory", 2, 1),
        (450, "scores", 1, 0),
    ]
    status = ledger.write_now(lambda c: relay_records.status(c, enabled=True, failures_in_a_row=0))
    assert (status.outbox_pending, status.dlq_abandoned, status.total_ok) == (3, 1, 1)
    assert [entry.block for entry in ledger.write_now(relay_records.heads)] == [2, 3]
    ledger.close()


def test_signatures_from_before_one_a_block_keep_a_changed_uid_from_signing_again(tmp_path: Path) -> None:
    ledger = open_inline(tmp_path / "ledger")
    rows = [
        ("ranking", "6", "second", 2.0),
        ("ranking", "5", "first", 1.0),
        ("scores", "", "cosigned", 3.0),
        ("scores", "5", "plain", 1.0),
        ("memory", "nodes1", "part", 1.0),
    ]

    def written(c: sqlalchemy.Connection) -> None:
        for kind, source, output_hash, at in rows:
            key = {"netuid": 450, "kind": kind, "block": 7, "source": source, "signer": "key"}
            c.execute(relay_signatures.insert().values(key | {"output_hash": output_hash, "at": at}))

    ledger.write_now(written)
    ledger.write_now(migrations._validators_sign_once_a_block)
    about = (relay_signatures.c.kind, relay_signatures.c.source, relay_signatures.c.output_hash)
    kept = ledger.write_now(lambda c: c.execute(sqlalchemy.select(*about)).all())
    assert sorted(map(tuple, kept)) == [
        ("memory", "nodes1", "part"),
        ("ranking", "", "first"),
        ("scores", "", "cosigned"),
    ]
    ledger.close()


def test_rows_of_the_relay_and_the_receiver_keep_their_numbers_when_kinds_and_nonces_are_told_apart(
    tmp_path: Path,
) -> None:
    path, signer = tmp_path / "ledger", "x'" + "07" * 32 + "'"
    before = msgspec.structs.replace(LEDGER, migrations=MIGRATIONS[:20])
    raw, handle = connection.open_writer(before, path)
    handle.close()
    handle.engine.dispose()
    raw.close()
    with sqlite3.connect(path) as raw:
        raw.executescript(
            "INSERT INTO relay_outbox (id, kind, nonce, output_hash, block, payload, state, next_attempt_at,"
            " created_at, updated_at, stream_id, seq) VALUES"
            " (41, 'memory', '7:a:1', 'h', 7, x'7b7d', 'pending', 1, 1, 1, 3, 9),"
            " (42, 'memory', '7:a:2', 'h', 7, x'7b7d', 'pending', 1, 1, 1, 3, 10);"
            "DELETE FROM relay_outbox WHERE id = 42;"
            "INSERT INTO relay_candidates VALUES (450, 6, 7, x'00', 'n', 'h', x'7b7d', NULL, NULL, '[]', 'waiting',"
            " NULL, 1, 1);"
            "INSERT INTO relay_bundles VALUES (450, 6, 7, '5A', 'h', 's', 2, 1);"
            "INSERT INTO relay_evidence (at, netuid, block, proposer, judge, verdict, reason, differences, output_hash,"
            " document) VALUES (1, 450, 7, '5A', '5B', 'differs', 'r', '[]', 'h', x'7b7d');"
            "INSERT INTO xeris_accepted (id, kind, nonce, netuid, block, source, signer, signers, output_hash,"
            " signed_hash, round_ts, document, acknowledgement, received_at, overdue)"
            f" VALUES (77, 'scores', '7:5:1', 450, 7, '5', {signer}, 2, 'h', 's', 1, x'7b7d', x'7b7d', 1, 1);"
        )
    raw.close()
    open_inline(path).close()
    with sqlite3.connect(path) as raw:
        for name in ("candidates", "bundles", "evidence"):
            assert raw.execute(f"SELECT kind FROM relay_{name}").fetchall() == [("scores",)]
        assert raw.execute("SELECT id, nonce, stream_id, seq FROM relay_outbox").fetchall() == [(41, "7:a:1", 3, 9)]
        columns = "kind, nonce, output_hash, block, payload, state, next_attempt_at, created_at, updated_at"
        raw.execute(
            f"INSERT INTO relay_outbox ({columns}, stream_id) SELECT {columns}, 4 FROM relay_outbox"
        )  # another stream's entry of the same nonce
        assert raw.execute("SELECT max(id) FROM relay_outbox").fetchone() == (43,), "no number is given twice"
        assert raw.execute("SELECT id, overdue FROM xeris_accepted").fetchall() == [(77, 1)]
        columns = "kind, nonce, block, source, signer, signers, output_hash, signed_hash, round_ts, document"
        columns += ", acknowledgement, received_at"
        raw.execute(f"INSERT INTO xeris_accepted (netuid, {columns}) SELECT 451, {columns} FROM xeris_accepted")
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute(f"INSERT INTO xeris_accepted (netuid, {columns}) SELECT 451, {columns} FROM xeris_accepted")
    raw.close()
