"""Commands that look into the ledger look into the one in use: the server of ledger.url, not the file it left."""

from pathlib import Path

import pytest

from config.model import LedgerSettings, Settings
from engram.cli.at_rest import read_in_use
from engram.cli.doctor import ledger as doctor
from engram.cli.failures import CommandFailed
from engram.ledger import LEDGER_FILE, facts, identity, open_inline
from engram.ledger.moving import to_server
from engram.ledger.opening import open_ledger
from engram.sessions import SessionState, counts
from tests.ledger.postgres.test_moving import filled, nothing, sold
from tests.postgres import cluster, needs_postgresql

pytestmark = needs_postgresql


def test_what_was_sold_since_the_move_is_read_from_the_server(tmp_path: Path, url: str) -> None:
    ledger_id = filled(tmp_path)
    before = open_inline(tmp_path / LEDGER_FILE)
    number = before.write_now(counts.scan)[SessionState.PAYMENT_PENDING]
    before.close()
    to_server(tmp_path, url, nothing)
    ledger = open_ledger(LedgerSettings(url=url), tmp_path)
    ledger.write_now(lambda connection: sold(1_000, connection))
    ledger.close()
    settings = Settings(data_dir=str(tmp_path), ledger=LedgerSettings(url=url))
    assert read_in_use(settings, facts.ledger_id) == ledger_id
    assert read_in_use(settings, counts.scan)[SessionState.PAYMENT_PENDING] == number + 1
    assert [one.verdict for one in doctor.on_server(settings)] == ["good", "good"]
    with pytest.raises(CommandFailed, match=r"was moved to postgresql://.*set ledger.url"):
        read_in_use(Settings(data_dir=str(tmp_path)), counts.scan)


def test_the_doctor_says_what_of_a_server_may_lose_acknowledged_sales(tmp_path: Path) -> None:
    with cluster("-c fsync=off -c full_page_writes=off") as server:
        settings = Settings(data_dir=str(tmp_path), ledger=LedgerSettings(url=server.new_ledger()))
        identity.claim(tmp_path, "local", settings.ledger)
        first = next(iter(doctor.on_server(settings)))
        assert first.verdict == "note"
        assert "fsync is off" in first.text
        assert "full_page_writes is off" in first.text
        with cluster(primary=server):
            assert "no synchronous_standby_names" in next(iter(doctor.on_server(settings))).text


def test_a_server_with_no_ledger_of_ours_is_an_error(tmp_path: Path, url: str) -> None:
    identity.claim(tmp_path, "local")
    settings = Settings(data_dir=str(tmp_path), ledger=LedgerSettings(url=url))
    with pytest.raises(CommandFailed, match=r"the server of ledger.url is no ledger that this version can read"):
        read_in_use(settings, counts.scan)
    assert [one.verdict for one in doctor.on_server(settings)] == ["bad"]
