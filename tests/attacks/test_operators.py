"""What an operator does wrong is told in a line, and opens nothing to others."""

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engram.durable.driver import sqlite3
from engram.gateway import probes
from engram.ledger import LEDGER_FILE, backup, facts
from engram.ledger.connection import open_writer
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import ROOT, GatewayProcess


def modes(folder: Path) -> dict[str, str]:
    """What others may do with what is in the folder, by name; empty when nothing."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode):
            found[str(path.relative_to(folder))] = oct(stat.S_IMODE(mode))
    return found


def test_a_data_folder_that_was_open_to_others_shows_them_no_ledger_no_key_and_no_node(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        with GatewayProcess(folder) as gateway:
            gateway.start()
            buyer = Buyer()
            buyer.quote(gateway.url)
            answer = buyer.pay(gateway.url)
            buyer.wait(gateway.url, str(answer.body["session_id"]), "active")
            assert modes(folder) == {}
            copy = tmp_path / "copy.sqlite3"
            backup.backup(folder / LEDGER_FILE, copy)
            assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_nodes_of_another_backend_are_never_left_to_one_that_cannot_end_them(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.start()
        buyer = Buyer()
        buyer.quote(gateway.url)
        buyer.wait(gateway.url, str(buyer.pay(gateway.url).body["session_id"]), "active")
        gateway.kill()
        with contextlib.closing(sqlite3.connect(gateway.data_dir / LEDGER_FILE)) as ledger:
            ledger.execute("UPDATE nodes SET backend = 'docker'")  # as if this had been bought from another backend
            ledger.commit()
        gateway.spawn()
        assert not gateway.wait_ready()
        assert gateway.wait() == 2
        assert "engram cannot start: 1 nodes of backend 'docker' are alive" in gateway.log()
        assert "add 'docker' to provisioning.backends" in gateway.log()
        with contextlib.closing(sqlite3.connect(gateway.data_dir / LEDGER_FILE)) as ledger:
            assert ledger.execute("SELECT state FROM nodes").fetchall() == [("running",)]


def test_what_was_bought_with_play_money_is_never_served_in_another_environment(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    opened = open_writer(folder / LEDGER_FILE)
    assert facts.claim_environment(opened, "local") == facts.claim_environment(opened, "mainnet") == "local"
    opened.close()
    opened.engine.dispose()
    variables = {
        "X402_RECIPIENT_ADDRESS": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "X402_FACILITATOR_URL": "https://127.0.0.1:9",
        "X402_RPC_URL": "https://127.0.0.1:9",
        "AKASH_OWNER_ADDRESS": "akash1" + "q" * 38,
    }
    command = [sys.executable, str(ROOT / "run.py"), "gateway", "--profile", "testnet", "--port", "0"]
    started = subprocess.run(
        [*command, "--ops-port", "0", "--data-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (started.returncode, started.stderr.splitlines()[-1]) == (
        2,
        f"engram cannot start: {folder} holds the ledger of environment local, not testnet; set data_dir",
    )


async def test_a_disk_that_is_nearly_full_is_not_ready_to_sell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = probes.disk_probe(tmp_path)
    monkeypatch.setattr(probes, "LEAST_FREE_BYTES", 0)
    assert await ready() == ""
    monkeypatch.setattr(probes, "LEAST_FREE_BYTES", 2**62)
    assert (await ready()).endswith("MB left: free some space")


@pytest.mark.parametrize("size", [0, 5_000, 60_000])
def test_a_damaged_ledger_is_replaced_by_its_backup_and_kept_as_it_was(tmp_path: Path, size: int) -> None:
    folder, copy = tmp_path / "data", tmp_path / "copy.sqlite3"
    folder.mkdir()
    ledger, wal = folder / LEDGER_FILE, folder / f"{LEDGER_FILE}-wal"
    opened = open_writer(ledger)
    opened.close()
    opened.engine.dispose()
    backup.backup(ledger, copy)
    damaged = bytes(range(256)) * (size // 256)
    ledger.write_bytes(damaged)
    wal.write_bytes(damaged)
    kept = backup.restore(copy, folder)
    assert backup.check(ledger).problems == []
    assert not wal.exists()
    if size:
        assert kept.read_bytes() == kept.with_name(f"{kept.name}-wal").read_bytes() == damaged
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_damaged_key_of_the_gateway_is_told_in_a_line(tmp_path: Path) -> None:
    key = tmp_path / "data" / "gateway-hotkey"
    key.parent.mkdir(mode=0o700)
    key.touch(mode=0o600)
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.spawn()
        assert not gateway.wait_ready()
        assert gateway.wait() == 2
        told = gateway.log().splitlines()[-1]
        assert told == f"engram cannot start: the key file {key} is damaged: neither JSON nor a seed"
        assert key.read_bytes() == b""  # phones pin the key: it is never replaced by a new one


def test_a_second_gateway_on_the_same_port_is_told_so_and_which(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        port = str(urlsplit(gateway.start().url).port)
        command = [sys.executable, str(ROOT / "run.py"), "gateway", "--profile", "local", "--ops-port", "0"]
        second = subprocess.run(
            [*command, "--port", port, "--data-dir", str(tmp_path / "other")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 2, second.stderr
        told = second.stderr.splitlines()[-1]
        assert told.startswith(f"engram cannot start: [Errno 98] cannot listen on http://127.0.0.1:{port}")
        assert gateway.terminate() == 0
