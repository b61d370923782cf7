"""What the version before the foundation left on disk, when it was killed, opens, migrates and serves.

tests/data/before/make.py says how the folder was made.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair
from engram.ledger import LEDGER_FILE, data_folder, facts, open_inline
from engram.ledger.backup import backup, check
from engram.memory.upkeep import backups, verify
from engram.memory.upkeep.data_files import TRUTH
from engram.payments.tables import payments
from engram.sessions.tables import sessions
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import GatewayProcess
from tests.miner.nodes import CONTROLLER, NodeProcess, in_namespace, signed

BEFORE = Path(__file__).parents[1] / "data" / "before"
KNOWN: dict[str, Any] = json.loads((BEFORE / "known.json").read_text())
BUYER = Keypair.from_seed(bytes([9]) * 32)


@pytest.fixture
def left(tmp_path: Path) -> Path:
    with tarfile.open(BEFORE / "data-folder.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_the_ledger_is_sound_before_anything_writes_to_it(left: Path) -> None:
    report = check(left / "gateway" / LEDGER_FILE)
    assert report.problems == []
    assert report.rows["sessions"] == report.rows["payments"] == 2
    assert backup(left / "gateway" / LEDGER_FILE, left / "copy") > 0
    assert check(left / "copy").rows == report.rows


def test_the_ledger_opens_with_what_was_sold(left: Path) -> None:
    def states(connection: Connection) -> dict[str, str]:
        return {row.id: row.state for row in connection.execute(select(sessions.c.id, sessions.c.state))}

    with data_folder(left / "gateway") as folder:
        ledger = open_inline(folder / LEDGER_FILE)
        assert ledger.write_now(states) == {KNOWN["active"]: "active", KNOWN["stopped"]: "stopped"}
        assert ledger.write_now(lambda connection: facts.get(connection, "environment")) == "local"
        settled = select(payments.c.state).where(payments.c.session_id == KNOWN["active"])
        assert ledger.write_now(lambda connection: connection.execute(settled).scalar_one()) == "settled"
        ledger.close()


def test_a_gateway_serves_what_was_sold_and_sells_on(left: Path) -> None:
    buyer = Buyer()
    buyer.keypair = BUYER
    with GatewayProcess(left / "gateway").start() as gateway:
        held = {each["session_id"]: each for each in buyer.sessions(gateway.url)}
        assert set(held) == {KNOWN["active"], KNOWN["stopped"]}
        assert held[KNOWN["stopped"]]["status"] == "stopped"
        assert buyer.get(gateway.url, KNOWN["active"]).body["payment_tx"] == KNOWN["payment_tx"]
        buyer.quote(gateway.url)
        assert buyer.pay(gateway.url).status == 202
        gateway.terminate()
    assert check(left / "gateway" / LEDGER_FILE).rows["payments"] == 3


def test_the_records_are_sound_before_anything_writes_to_them(left: Path) -> None:
    found = verify.check(left / "node")
    assert (found.records, found.public_records, found.conversations) == (3, 2, 1)
    assert found.bad == []
    assert backups.back_up(left / "node", left / "copy", 1.0).records == 3


def test_a_node_serves_what_was_stored_and_stores_on(left: Path) -> None:
    (left / "run").mkdir()
    (left / "node").rename(left / "run" / "data")
    node = NodeProcess(left / "run")

    def ask(path: str, endpoint: str, **fields: object) -> dict[str, Any]:
        status, answer = node.ask("POST", path, signed(CONTROLLER, endpoint, fields))
        assert status == 200, (path, status, answer)
        return dict(answer)

    node.start()
    try:
        assert {each["cid"] for each in ask("/list", "list")["records"]} == set(KNOWN["public"])
        notes = ask("/list", "list", **in_namespace(CONTROLLER, "notes"))["records"]
        assert [each["cid"] for each in notes] == [KNOWN["private"]]
        for ref, cid in zip(("r1", "r\0two"), KNOWN["public"], strict=True):
            assert [each["cid"] for each in ask("/list", "list", filter={"_ref": ref})["records"]] == [cid]
        hits = ask("/QuerySynapse", "QuerySynapse", query_text="a late frost", top_k=5)["results"]
        assert hits[0]["cid"] == KNOWN["public"][0]
        assert KNOWN["deleted"] not in {hit["cid"] for hit in hits}
        ask("/IngestSynapse", "IngestSynapse", text="and on")
        status, answer = node.ask(
            "DELETE",
            f"/retrieve/{KNOWN['public'][1]}",
            signed(CONTROLLER, "DeleteSynapse", {"cid": KNOWN["public"][1]}),
        )
        assert status == 200, answer
    finally:
        node.terminate()
    assert verify.check(left / "run" / "data").problems == []
    connection = sqlite3.connect(left / "run" / "data" / TRUTH)
    assert connection.execute("SELECT value FROM meta WHERE key = 'sequence'").fetchone() == ("7",)
    connection.close()
