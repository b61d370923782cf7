"""The whole job of a buyer in the app, against a real gateway with play money."""

import time
from pathlib import Path

import pytest
from eth_account import Account

from engram.hotkeys import Keypair
from engram.sdk import GatewayClient, NodeClient, phone_notes
from engram.sdk.app_receipt import check
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import needs_app, open_browser

Account.enable_unaudited_hdwallet_features()
pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]


def read_by_the_sdk(url: str, words: str, text: str) -> None:
    """Read what the phone encrypted with the same words, and write a note that the phone reads."""
    keypair = Keypair.from_uri(words)
    with GatewayClient(url, keypair) as gateway:
        endpoint = gateway.sessions()[0].node_endpoint
    assert endpoint is not None
    cipher, embed = phone_notes.cipher(keypair), phone_notes.embedder(keypair)
    with NodeClient(endpoint, keypair, namespace=phone_notes.NAMESPACE, cipher=cipher, embed=embed) as node:
        assert [hit.metadata["text"] for hit in node.query("interest rates")] == [text]
        node.ingest("A comet, written by a program", {"stored_at": int(time.time())})


def delete_by_the_sdk(url: str, words: str, text: str) -> None:
    """Delete a note, as a node that loses one would do without a word."""
    keypair = Keypair.from_uri(words)
    with GatewayClient(url, keypair) as gateway:
        endpoint = gateway.sessions()[0].node_endpoint
    assert endpoint is not None
    cipher, embed = phone_notes.cipher(keypair), phone_notes.embedder(keypair)
    with NodeClient(endpoint, keypair, namespace=phone_notes.NAMESPACE, cipher=cipher, embed=embed) as node:
        [hit] = [hit for hit in node.query(text) if hit.metadata["text"] == text]
        assert node.delete(hit.cid)


@pytest.mark.parametrize(("theme", "width", "height"), [("light", 390, 844), ("dark", 1280, 800)])
def test_a_person_buys_uses_and_stops_a_node(tmp_path: Path, theme: str, width: int, height: int) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        url = gateway.start().url
        began = time.monotonic()
        browser.do("open", {"url": url, "theme": theme, "width": width, "height": height})
        words = browser.do("create", {"check": True})
        assert browser.do("pay") == "Pay $0.10"
        session_id = browser.do("status", "active")
        browser.do("sees", "Started.")  # the last step: the root of its memory, checked by the phone
        assert browser.do("evaluate", "document.querySelectorAll('details li.done .number').length") == 4
        browser.do("go", f"memory/{session_id}")
        for text in ("Late frost ruined most of the vineyard.", "The bank raised interest rates. <b>ünï</b>"):
            browser.do("fill", {"label": "Write a note", "text": text})
            browser.do("click", "Store")
            browser.do("sees", text)
        browser.do("sees", "2 notes, intact")
        assert browser.do("axe") == []
        browser.do("fill", {"label": "Search your notes", "text": "interest rates"})
        browser.do("click", "Search")
        browser.do("sees", "All notes")
        assert "interest" in browser.do("notes")[0]
        browser.do("click", "All notes")
        browser.do("removeNote", "Late frost")
        assert browser.do("leaked", ["frost", "interest rates."]) == []
        away = time.monotonic()
        read_by_the_sdk(url, words, "The bank raised interest rates. <b>ünï</b>")
        began += time.monotonic() - away  # a program's time is not the person's
        browser.do("reload")
        browser.do("sees", "A comet, written by a program")
        delete_by_the_sdk(url, words, "A comet, written by a program")
        browser.do("reload")
        browser.do("sees", "Only 1 of 2 sampled notes could be proven")
        browser.do("click", "I deleted them on another device")
        browser.do("sees", "1 note, intact")
        exported = browser.do("download", "Export everything")
        assert '"kind":"end"' in exported["content"].splitlines()[-1]
        browser.do("go", f"node/{session_id}")
        browser.do("click", "Stop")
        browser.do("click", "Stop and delete")
        assert browser.do("status", "stopped") == session_id
        receipt = check(browser.do("download", "Save the receipt")["content"].encode())
        assert [(each.status, each.amount_usd) for each in receipt.payments] == [("settled", 0.1)]
        assert receipt.payments[0].payer == Account.from_mnemonic(words).address
        assert time.monotonic() - began < 30
        # The proof of a sampled record may cross the stop, and is refused then.
        assert [said for said in browser.do("said") if "409 (Conflict)" not in said] == []
        each = words.split()
        assert browser.do("leaked", [words, " ".join(each[:4]), " ".join(each[-4:])]) == []
        assert gateway.nodes() == []
