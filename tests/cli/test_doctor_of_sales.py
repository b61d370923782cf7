"""`engram doctor` says whether anything could be sold, in the words of the gateway itself."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

import config
from config.model import Settings
from engram.cli.doctor import akash, engine, ledger
from engram.cli.doctor.finding import Finding
from engram.cli.doctor.sales import sales
from engram.gateway import sales_switch
from engram.ledger import facts
from engram.provisioning import node_keys, node_parts
from tests.cli.conftest import Run
from tests.cli.test_doctor import about, found, write


def settings(profile: str, folder: Path, **flags: str) -> Settings:
    named: dict[str, str | float | None] = {
        "data_dir": str(folder),
        "payments.recipient": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "provisioning.backend": "local",
        "miner.embedder": "hash",
    }
    return config.load(profile, (), {}, named | flags, ()).settings


def told(wanted: Settings, ledger: Path, *others: Finding) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.text) for finding in sales(wanted, ledger, others)]


def test_a_fresh_local_gateway_could_sell(here: Path, run: Run) -> None:
    code, findings = found(run, "--set", "miner.embedder=hash")
    assert code == 0
    assert about(findings, "sales") == [Finding("sales", "good", "a session could be sold")]


def test_a_fresh_testnet_gateway_sells_nothing_for_want_of_hotkeys(tmp_path: Path) -> None:
    wanted = settings("testnet", tmp_path)
    ((verdict, text),) = told(wanted, tmp_path / "ledger.db")
    assert (verdict, text.startswith("nothing can be sold: The pool of node hotkeys is empty")) == ("bad", True)
    assert "engram hotkeys pool add" in text

    def add_key(connection: Connection) -> None:
        node_keys.add(connection, b"\x01" * 32, tmp_path / "key", "operator", 1.0)

    ledger = write(tmp_path, add_key, environment="testnet")
    assert told(wanted, ledger) == [("good", "a session could be sold")]


def test_a_switch_that_is_off_and_a_facilitator_that_is_down_are_notes(tmp_path: Path) -> None:
    ledger = write(tmp_path, lambda connection: facts.put(connection, sales_switch.KEY, "off"))
    down = Finding("facilitator", "bad", "https://x402.example/supported cannot be read")
    assert told(settings("local", tmp_path), ledger, down) == [
        ("note", "nothing can be sold: Nothing is sold at the moment; running sessions go on; engram selling on"),
        ("note", "nothing can be sold: https://x402.example/supported cannot be read"),
    ]


def test_settings_that_keep_a_gateway_from_starting_sell_nothing(tmp_path: Path) -> None:
    wrong = Finding("settings", "bad", "environment local: gateway.host: play money")
    assert told(settings("local", tmp_path), tmp_path / "ledger.db", wrong) == [
        ("bad", "nothing can be sold: a gateway does not start with these settings")
    ]


@pytest.mark.parametrize(("backend", "what"), [("docker", engine.WHAT), ("akash", akash.WHAT)])
def test_a_backend_that_does_not_answer_sells_nothing_unless_another_one_does(
    tmp_path: Path, backend: str, what: str
) -> None:
    gone = Finding(what, "bad", "no connection")
    alone, beside = (
        settings("local", tmp_path, **{"provisioning.backends": backends})
        for backends in (f'["{backend}"]', f'["local", "{backend}"]')
    )
    ((verdict, text),) = told(alone, tmp_path / "ledger.db", gone)
    assert (verdict, text.startswith("nothing can be sold: Where nodes run cannot be reached")) == ("note", True)
    assert backend in text
    assert told(beside, tmp_path / "ledger.db", gone) == [("good", "a session could be sold")]


def test_a_ledger_that_cannot_be_read_is_told_of_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"noise" * 1000)
    assert told(settings("local", tmp_path), tmp_path / "ledger.db") == [("good", "a session could be sold")]


def test_an_installation_without_the_node_extra_is_bad(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_parts, "_can_import", lambda module: module != "onnxruntime")
    code, findings = found(run)
    assert code == 1
    for what in ("node", "sales"):
        (finding,) = about(findings, what)
        assert finding.verdict == "bad"
        assert "onnxruntime" in finding.text
        assert "pip install 'engram[node]'" in finding.text


def test_a_ledger_server_that_does_not_answer_sells_nothing_and_is_named(tmp_path: Path) -> None:
    left_behind = write(tmp_path, lambda connection: None)
    away = settings("local", tmp_path, **{"ledger.url": "postgresql://engram@127.0.0.1:1/engram"})
    assert told(away, left_behind) == [("bad", "nothing can be sold: the server of ledger.url cannot be read")]
    (finding,) = ledger.on_server(away)
    assert (finding.what, finding.verdict) == ("ledger", "bad")
    assert "cannot be reached" in finding.text
