"""The operator's commands against a running gateway, as typed in a shell."""

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.durable.driver import sqlite3
from tests.e2e.buyer import Buyer
from tests.e2e.gateway_process import ROOT, GatewayProcess

ENGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from engram.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("operator") / "data") as process:
        yield process.start()


def engram(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ENGRAM, str(ROOT), *words, "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=data_dir.parent, timeout=60)


def answer(data_dir: Path, *words: str) -> Any:
    done = engram(data_dir, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bought(gateway: GatewayProcess) -> tuple[Buyer, str]:
    buyer = Buyer()
    buyer.quote(gateway.url)
    return buyer, str(buyer.pay(gateway.url).body["session_id"])


def test_sessions_are_listed_shown_and_stopped(gateway: GatewayProcess) -> None:
    buyer, session_id = bought(gateway)
    buyer.wait(gateway.url, session_id, "active")
    assert session_id in engram(gateway.data_dir, "sessions", "list").stdout
    assert session_id in json.dumps(answer(gateway.data_dir, "sessions", "show", session_id))
    stopped = engram(gateway.data_dir, "sessions", "stop", session_id)
    assert stopped.returncode == 0, stopped.stderr
    assert buyer.wait(gateway.url, session_id, "stopped")["end_reason"] == "stopped_by_operator"


def test_payments_are_exported_for_the_books(gateway: GatewayProcess) -> None:
    buyer, session_id = bought(gateway)
    exported = engram(gateway.data_dir, "payments", "export", "--csv")
    assert exported.returncode == 0, exported.stderr
    rows = list(csv.DictReader(io.StringIO(exported.stdout)))
    assert session_id in {row["session_id"] for row in rows}
    buyer.stop(gateway.url, session_id)


def test_selling_off_refuses_new_sessions_and_keeps_serving(gateway: GatewayProcess) -> None:
    buyer, session_id = bought(gateway)
    assert engram(gateway.data_dir, "selling", "off").returncode == 0
    refused = Buyer().post(gateway.url, "/sessions")
    assert (refused.status, refused.body["code"]) == (503, "not_selling")
    assert "retry-after" in refused.headers
    assert buyer.get(gateway.url, session_id).status == 200
    assert buyer.pay(gateway.url).body["session_id"] == session_id
    assert engram(gateway.data_dir, "selling", "on").returncode == 0
    assert Buyer().post(gateway.url, "/sessions").status == 402
    buyer.stop(gateway.url, session_id)


def test_the_ledger_is_backed_up_while_it_is_used_and_restored_when_it_is_not(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.start()
        buyer, session_id = bought(gateway)
        copy = tmp_path / "copy.sqlite3"
        backed_up = engram(gateway.data_dir, "ledger", "backup", str(copy))
        assert backed_up.returncode == 0, backed_up.stderr
        busy = engram(gateway.data_dir, "ledger", "restore", str(copy))
        assert busy.returncode == 1
        assert "in use" in busy.stderr
        assert gateway.terminate() == 0
        restored = engram(gateway.data_dir, "ledger", "restore", str(copy))
        assert restored.returncode == 0, restored.stderr
        assert engram(gateway.data_dir, "ledger", "check").returncode == 0
        gateway.start()
        assert buyer.get(gateway.url, session_id).status == 200
        buyer.stop(gateway.url, session_id)
        buyer.wait(gateway.url, session_id, "stopped")


def test_a_quarantined_session_is_visible_hurts_nobody_and_does_not_stop_the_next_start(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.start()
        buyer, session_id = bought(gateway)
        buyer.wait(gateway.url, session_id, "active")
        assert gateway.terminate() == 0
        with sqlite3.connect(gateway.data_dir / "ledger.sqlite3") as ledger:
            ledger.execute(
                "UPDATE sessions SET state = 'provisioning', crashes = 5, quarantined_at = ? WHERE id = ?",
                (time.time(), session_id),
            )
        ledger.close()
        gateway.start()
        listed = engram(gateway.data_dir, "sessions", "list").stdout
        assert "quarantine" in listed.lower()
        assert session_id in listed
        other, other_id = bought(gateway)
        other.wait(gateway.url, other_id, "active")
        other.stop(gateway.url, other_id)
        buyer.stop(gateway.url, session_id)
        other.wait(gateway.url, other_id, "stopped")


def test_without_a_running_gateway_the_commands_say_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = engram(tmp_path / "data", "sessions", "list")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"engram: no engram process serves {tmp_path / 'data'}; start it first (--data-dir names another folder)\n"
    )


def test_the_status_of_a_running_gateway_is_what_it_does(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.start()
        before = answer(gateway.data_dir, "status")
        buyer, session_id = bought(gateway)
        buyer.wait(gateway.url, session_id, "active")
        status = answer(gateway.data_dir, "status")
        assert (before["sessions"], before["payments"]) == ({}, {})
        assert (status["sessions"], status["payments"], status["quarantined"]) == ({"active": 1}, {"settled": 1}, [])
        assert (status["environment"], status["selling"]) == ("local", True)
        assert status["uptime_s"] > before["uptime_s"]
        running = {node["path"] for node in status["tree"] if node["state"] == "running"}
        assert {"root", "root/ledger", "root/http"} - running == set()
