"""What happens to people: other devices, two windows, lost answers, a gateway that dies, a clock that is off."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engram.durable.driver import sqlite3
from engram.hotkeys import Keypair, polkadot_keystore
from engram.ledger import LEDGER_FILE
from engram.sdk import GatewayClient
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, needs_app, open_browser
from tests.shared import free_port

pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]


POLKADOT_JS: Any = json.loads((Path(__file__).parents[1] / "hotkeys" / "data" / "polkadot_js.json").read_bytes())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("phone")
    with GatewayProcess(folder / "data", settings=FAST) as started:
        yield started.start()


def payments_in(data_dir: Path) -> list[str]:
    """The states of all payments, from the ledger."""
    with sqlite3.connect(f"file:{data_dir / LEDGER_FILE}?mode=ro", uri=True) as connection:
        return [state for (state,) in connection.execute("SELECT state FROM payments ORDER BY created_at")]


def test_words_bring_nodes_and_spending_key_to_another_device(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "old"})
    words = browser.do("create")
    browser.do("pay")
    session_id = browser.do("status", "active")
    browser.do("go", "wallet")
    browser.do("sees", "0x")
    payer = browser.do("evaluate", "document.body.innerText.match(/0x[0-9a-fA-F]{40}/)[0]")
    browser.do("open", {"url": gateway.url, "profile": "new"})
    browser.do("restore", f"  {words.upper()} ")
    browser.do("sees", "Active")
    browser.do("go", "wallet")
    browser.do("sees", payer)
    browser.do("go", f"node/{session_id}")
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")
    browser.do("turn", "old")
    browser.do("go", f"node/{session_id}")
    browser.do("status", "stopped")


def test_words_that_are_wrong_are_named(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "typo"})
    browser.do("click", "I have one already")
    for typed, said in (
        ("abandon abandon", "That is 2 words"),
        ("abandon " * 11 + "bitcoin", "“bitcoin” is not one of the words"),
        ("abandon " * 12, "One of these words is wrong"),
    ):
        browser.do("fill", {"label": "Your 12 or 24 words", "text": typed})
        browser.do("click", "Open it")
        browser.do("sees", said)


FIRST_ANSWER_HANGS = """const fetched = window.fetch;
let held = false;
window.fetch = (url, ...rest) => {
  if (held || !String(url).endsWith('/identity')) return fetched(url, ...rest);
  held = true;
  return new Promise(() => undefined);
};"""


def test_what_happens_before_the_gateway_first_answers_is_not_missed(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "first answer", "init": FIRST_ANSWER_HANGS})
    browser.do("create")
    rename = "look => ({ ...look, name: 'Renamed shop' })"
    browser.do("lie", {"method": "GET", "path": "/app/config.json", "seed": "00" * 32, "change": rename})
    browser.do("evaluate", "document.dispatchEvent(new Event('visibilitychange'))")
    browser.do("sees", "Renamed shop")
    browser.do("close", "first answer")


SHOWN_CODE = "document.querySelector('dialog .mono').textContent"


def test_a_one_time_code_brings_the_identity_to_another_device_once(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "has it"})
    words = browser.do("create")
    browser.do("go", "wallet")
    browser.do("click", "Show a one-time code")
    browser.do("sees", "Works once")
    code = browser.do("evaluate", SHOWN_CODE)
    browser.do("click", "Close")
    browser.do("reload")
    for profile, typed, said in (
        ("mistyped", code[:-1], "That is no code"),
        ("gets it", code.lower().replace("-", " "), "Your nodes"),
        ("too late", code, "Nothing waits under this code"),
    ):
        browser.do("open", {"url": gateway.url, "profile": profile})
        browser.do("click", "I have one already")
        browser.do("click", "Code")
        browser.do("fill", {"label": "One-time code", "text": typed})
        browser.do("click", "Open it")
        browser.do("sees", said)
    browser.do("turn", "has it")
    browser.do("sees", "Another device has taken this identity")  # on whatever screen
    browser.do("click", "Close")
    browser.do("gone", "Another device has taken this identity")
    browser.do("click", "Show a one-time code")
    browser.do("sees", "Works once")
    newer = browser.do("evaluate", SHOWN_CODE)
    browser.do("turn", "too late")
    browser.do("fill", {"label": "One-time code", "text": newer})
    browser.do("click", "Open it")
    browser.do("sees", "Your nodes")
    browser.do("turn", "has it")
    browser.do("sees", "Another device has taken this identity")  # in the code's sheet
    browser.do("enabled", "Make another code")
    browser.do("turn", "gets it")
    browser.do("go", "wallet")
    browser.do("click", "Show the words")
    browser.do("sees", words.split()[3])
    assert browser.do("leaked", [code, code.replace("-", ""), words]) == []


def test_when_a_place_comes_free_and_what_comes_back_is_said(tmp_path: Path, browser: Browser) -> None:
    settings = FAST + "[provisioning]\nplaces = 1\n[payments]\nearly_stop_refund_percent = 100\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        browser.do("open", {"url": gateway.start().url, "profile": "only one"})
        words = browser.do("create")
        browser.do("pay")
        session_id = browser.do("status", "active")
        browser.do("go", "start")
        browser.do("sees", "Every node is taken at the moment. One is free about")
        browser.do("go", "")
        with GatewayClient(gateway.url, Keypair.from_uri(words)) as client:
            client.stop(session_id)
        browser.do("sees", "You stopped it.")
        browser.do("sees", "back to your spending key")
        browser.do("click", "Close")
        browser.do("gone", "You stopped it.")


def test_of_two_windows_one_signs(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "both"})
    browser.do("create")
    browser.do("open", {"url": gateway.url, "profile": "both", "as": "second"})
    browser.do("sees", "open in another window")
    browser.do("go", "start")
    browser.do("sees", "Review and pay")
    assert browser.do("disabled", "Review and pay")
    browser.do("click", "Use it here")
    browser.do("gone", "open in another window")
    browser.do("turn", "both")
    browser.do("sees", "open in another window")
    browser.do("close", "second")
    browser.do("gone", "open in another window")


@pytest.mark.nightly
def test_two_windows_that_buy_at_once_buy_once(gateway: GatewayProcess, browser: Browser) -> None:
    before = browser.do("payments")
    browser.do("open", {"url": gateway.url, "profile": "here"})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    browser.do("open", {"url": gateway.url, "profile": "here", "as": "there"})
    browser.do("click", "Use it here")
    browser.do("pay", {"tier": "Lite"})
    browser.do("turn", "here")
    browser.do("sees", "open in another window")
    assert browser.do("disabled", "Pay $0.10")
    browser.do("turn", "there")
    browser.do("status", "active")
    assert browser.do("payments") == before + 1
    began = time.monotonic()
    browser.do("close", "there")
    browser.do("turn", "here")
    browser.do("gone", "open in another window")
    assert time.monotonic() - began < 2  # of which a second is the page's own, at most
    browser.do("sees", "Another payment is still open" if browser.do("disabled", "Pay $0.10") else "Pay $0.10")
    browser.do("close", "here")


def test_an_app_that_was_in_the_pocket_reads_everything_again_and_shows_ages_until_then(
    gateway: GatewayProcess, browser: Browser
) -> None:
    browser.do("open", {"url": gateway.url, "profile": "pocket"})
    browser.do("create")
    browser.do("pay")
    browser.do("status", "active")
    browser.do("says", "Live")
    assert browser.do("comesBack")
    browser.do("says", "Live")
    browser.do("breakStreams")
    browser.do("sees", " old")
    assert "does not answer" not in browser.do("text")
    assert "No connection" not in browser.do("text")
    browser.do("close", "pocket")


SHOWN_WORDS = "[...document.querySelectorAll('ol.card li')].map(each => each.innerText.split(/\\s+/).at(-1)).join(' ')"


def test_identities_of_one_device_are_apart_and_each_is_forgotten_by_itself(
    gateway: GatewayProcess, browser: Browser
) -> None:
    def words() -> str:
        browser.do("go", "wallet")
        browser.do("click", "Show the words")
        browser.do("sees", "Never type words here")
        shown: str = browser.do("evaluate", SHOWN_WORDS)
        return shown

    browser.do("open", {"url": gateway.url, "profile": "many"})
    first = browser.do("create")
    browser.do("go", "start")
    browser.do("pay")
    browser.do("status", "active")
    browser.do("go", "wallet")
    browser.do("click", "Add another identity")
    second = browser.do("create")
    browser.do("sees", "No node is running")
    assert words() == second != first
    browser.do("click", "Forget this identity on this device")
    browser.do("sees", "Forget this identity here?")
    browser.do("evaluate", "document.querySelector('dialog .danger').click()")
    browser.do("sees", "Time left")
    assert words() == first
    browser.do("close", "many")


@pytest.mark.parametrize("name", ["words", pytest.param("polkadot", marks=pytest.mark.nightly)])
def test_a_keystore_of_polkadot_js_is_brought_and_its_spending_key_gets_words(
    gateway: GatewayProcess, browser: Browser, name: str
) -> None:
    content = json.dumps(POLKADOT_JS["keystores"][name])
    browser.do("open", {"url": gateway.url, "profile": f"file {name}"})
    browser.do("click", "I have one already")
    browser.do("click", "File")
    browser.do("attach", {"label": "Keystore file", "name": "mine.json", "content": content})
    browser.do("fill", {"label": "Passphrase of the file", "text": "wrong"})
    browser.do("click", "Open it")
    browser.do("sees", "The passphrase is another one")
    browser.do("fill", {"label": "Passphrase of the file", "text": POLKADOT_JS["password"]})
    browser.do("click", "Open it")
    browser.do("sees", "Your nodes")
    browser.do("go", "wallet")
    browser.do("sees", polkadot_keystore.read(content.encode(), POLKADOT_JS["password"]).ss58)
    browser.do("sees", "not checked yet")
    browser.do("click", "Show the words")
    browser.do("sees", "Never type words here")
    browser.do("close", f"file {name}")


PLAIN_KEEPS = """(async () => [window.isSecureContext, (await indexedDB.databases()).map(({ name }) => name),
  document.querySelectorAll("button, input").length])()"""


def test_over_plain_http_one_page_explains_and_no_key_is_made(gateway: GatewayProcess, browser: Browser) -> None:
    port = gateway.url.rpartition(":")[2]
    browser.do("open", {"url": f"http://shop.example:{port}", "profile": "plain http"})
    browser.do("sees", "This address is not encrypted")
    browser.do("sees", "gateway.public_url")
    assert browser.do("evaluate", PLAIN_KEEPS) == [False, [], 0]
    assert browser.do("axe") == []
    browser.do("close", "plain http")


CUT = """(() => {
  const ask = window.fetch;
  const pays = (init) => init?.headers?.["PAYMENT-SIGNATURE"];
  window.fetch = (url, init) => pays(init) ? Promise.reject(new TypeError("cut")) : ask(url, init);
})()"""
"""No payment of the page leaves it."""


def test_a_window_that_comes_after_another_knows_of_its_payment_and_signs_no_second(
    tmp_path: Path, browser: Browser
) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway:
        url = gateway.start().url
        browser.do("open", {"url": url, "profile": "before"})
        browser.do("create")
        browser.do("open", {"url": url, "profile": "before", "as": "after"})
        browser.do("sees", "open in another window")
        browser.do("turn", "before")
        browser.do("evaluate", CUT)
        browser.do("pay")
        browser.do("sees", "The payment may have arrived")
        browser.do("turn", "after")
        browser.do("close", "before")
        session_id = browser.do("opensNode")  # the same authorization is sent from here
        browser.do("go", f"node/{session_id}")
        browser.do("status", "active")
        assert payments_in(tmp_path / "data") == ["settled"]
        browser.do("close", "after")


@pytest.mark.parametrize(
    ("off_s", "said"),
    [
        (-86_400, "clock is off by 2"),
        pytest.param(30, "", marks=pytest.mark.nightly),
        pytest.param(-30, "", marks=pytest.mark.nightly),
        pytest.param(-180, "clock is off by 3:", marks=pytest.mark.nightly),
        pytest.param(300, "clock is off by 5:", marks=pytest.mark.nightly),
        pytest.param(86_400, "clock is off by 2", marks=pytest.mark.nightly),
    ],
)
def test_a_clock_that_is_off_is_said_and_mended(
    gateway: GatewayProcess, browser: Browser, off_s: int, said: str
) -> None:
    profile = f"off by {off_s}"
    browser.do("open", {"url": gateway.url, "profile": profile, "clockOffMs": off_s * 1_000})
    browser.do("create")
    if said:
        browser.do("sees", said)
    browser.do("pay")
    browser.do("status", "active")
    assert ("clock is off" in browser.do("text")) is bool(said)
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")
    browser.do("close", profile)


def test_three_minutes_between_the_offer_and_the_tap_settle_and_another_clock_meanwhile_too(
    gateway: GatewayProcess, browser: Browser
) -> None:
    browser.do("open", {"url": gateway.url, "profile": "slow hands", "clockOffMs": 0})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    browser.do("moveClock", 180_000)  # it was in the pocket, and its clock was set meanwhile
    browser.do("evaluate", "document.dispatchEvent(new Event('visibilitychange'))")
    browser.do("sees", "clock is off by 3:")
    browser.do("click", "Pay $0.10")
    browser.do("status", "active")
    browser.do("close", "slow hands")


def test_a_clock_that_is_set_while_the_sheet_is_open_is_compared_before_anything_is_signed(
    gateway: GatewayProcess, browser: Browser
) -> None:
    browser.do("open", {"url": gateway.url, "profile": "set meanwhile", "clockOffMs": 0})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    before = browser.do("payments")
    browser.do("evaluate", SET_AND_PAY)
    browser.do("sees", "Nothing was signed yet: tap once more")
    assert browser.do("payments") == before
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Pay $0.10")
    browser.do("status", "active")
    browser.do("close", "set meanwhile")


SET_AND_PAY = """(() => { window.clockOffMs -= 600_000;
  const buttons = [...document.querySelectorAll('dialog button')];
  buttons.find((each) => each.textContent.trim() === 'Pay $0.10').click(); })()"""


def test_more_time_is_bought_for_a_node_that_runs(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "longer"})
    browser.do("create")
    browser.do("pay")
    session_id = browser.do("status", "active")
    browser.do("pay", {"route": f"#/extend/{session_id}"})
    browser.do("status", "active")
    browser.do("sees", "1:59:")
    browser.do("sees", "$0.20")
    browser.do("go", "activity")
    browser.do("sees", "More time")


def test_a_lost_answer_is_looked_for_until_it_is_known_and_paid_once(tmp_path: Path, browser: Browser) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST, port=free_port()) as gateway:
        url = gateway.start().url
        browser.do("open", {"url": url, "profile": "unlucky"})
        browser.do("create")
        browser.do("lose", {"method": "POST", "path": "/sessions", "paid": True, "times": 99})
        browser.do("pay")
        browser.do("sees", "The payment may have arrived")
        gateway.kill()
        browser.do("close", "unlucky")  # as a dead battery would
        gateway.start()
        browser.do("open", {"url": url, "profile": "unlucky"})
        session_id = browser.do("opensNode")
        browser.do("go", f"node/{session_id}")
        browser.do("status", "active")
        assert payments_in(tmp_path / "data") == ["settled"]


def test_the_app_opens_without_its_gateway_and_says_how_old_it_is(tmp_path: Path, browser: Browser) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST, port=free_port()) as gateway:
        url = gateway.start().url
        browser.do("open", {"url": url, "profile": "offline"})
        browser.do("create")
        browser.do("pay")
        browser.do("status", "active")
        browser.do("worker")
        gateway.kill()
        browser.do("reload")
        browser.do("sees", "No connection to the gateway. What you see is")
        browser.do("sees", "Lite")
        gateway.start()
        browser.do("gone", "No connection to the gateway")


def test_what_the_key_does_not_hold_is_refused_and_said(tmp_path: Path, browser: Browser) -> None:
    settings = FAST + "[facilitator]\nopening_balance_usd = 0.05\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        browser.do("open", {"url": gateway.start().url, "profile": "poor"})
        browser.do("create")
        browser.do("pay")
        browser.do("sees", "Nothing was charged")
        browser.do("sees", "does not hold enough")
        browser.do("click", "Close")
        browser.do("go", "start")
        browser.do("sees", "Another payment is still open")
        browser.do("go", "wallet")
        browser.do("sees", "$0.05")
        browser.do("click", "Get play money")
        browser.do("sees", "$100.05")
        browser.do("go", "activity")
        browser.do("click", "Try again with the same payment")
        browser.do("sees", "Paid")


def test_a_facilitator_that_is_down_is_said_before_anything_is_signed(tmp_path: Path, browser: Browser) -> None:
    settings = FAST + f"[payments]\nfacilitator_url = 'http://127.0.0.1:{free_port()}'\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway:
        before = browser.do("payments")
        browser.do("open", {"url": gateway.start().url, "profile": "early"})
        browser.do("create")
        browser.do("go", "start")
        browser.do("sees", "Nothing can be bought at the moment")
        assert browser.do("payments") == before


def test_a_passphrase_and_a_passkey_open_the_identity_and_nothing_else_does(
    gateway: GatewayProcess, browser: Browser
) -> None:
    browser.do("open", {"url": gateway.url.replace("127.0.0.1", "localhost"), "profile": "careful"})
    browser.do("authenticator")
    words = browser.do("create")
    browser.do("go", "wallet")
    browser.do("fill", {"label": "New passphrase", "text": "correct horse"})
    browser.do("click", "Set a passphrase")
    browser.do("sees", "A passphrase opens it")
    browser.do("reload")
    browser.do("fill", {"label": "Passphrase", "text": "wrong horse"})
    browser.do("click", "Open")
    browser.do("sees", "It does not open")
    browser.do("fill", {"label": "Passphrase", "text": "correct horse"})
    browser.do("click", "Open")
    browser.do("sees", "Wallet")
    browser.do("click", "Use a passkey")
    browser.do("sees", "A passkey opens it")
    browser.do("reload")
    browser.do("click", "Open with the passkey")
    browser.do("sees", "Recovery words")
    browser.do("click", "Show the words")
    browser.do("sees", words.split()[3])
    assert browser.do("kept") == []


KEPT_KEY = """(async () => {
  const open = indexedDB.open("engram");
  await new Promise((done) => { open.onsuccess = done; });
  const all = open.result.transaction("identities").objectStore("identities").getAll();
  const [kept] = await new Promise((done) => { all.onsuccess = () => done(all.result); });
  const found = await crypto.subtle.exportKey("raw", kept.sealed.key).then(() => "exported", (error) => error.name);
  return [kept.sealed.by, kept.sealed.key.extractable, found, JSON.stringify(kept).length < 2_000];
})()"""


def test_the_devices_key_is_given_to_no_script(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "device"})
    words = browser.do("create")
    assert browser.do("evaluate", KEPT_KEY) == ["device", False, "InvalidAccessError", True]
    browser.do("reload")
    browser.do("go", "wallet")
    browser.do("click", "Show the words")
    browser.do("sees", words.split()[3])


def test_a_keystore_file_is_saved_and_opens_elsewhere(gateway: GatewayProcess, browser: Browser) -> None:
    browser.do("open", {"url": gateway.url, "profile": "filed"})
    browser.do("create")
    browser.do("go", "wallet")
    browser.do("expand", "Save as a keystore file")
    browser.do("fill", {"label": "Passphrase of the file", "text": "correct horse"})
    saved = browser.do("download", "Save the file")
    opened = polkadot_keystore.read(saved["content"].encode(), "correct horse")
    assert saved["name"] == f"{opened.ss58}.json"
    browser.do("sees", opened.ss58)


def test_what_a_node_lost_is_put_back_from_the_export_and_called_restored(tmp_path: Path, browser: Browser) -> None:
    notes = ("Late frost ruined most of the vineyard.", "The bank raised interest rates.")
    with GatewayProcess(tmp_path / "data", settings=FAST, port=free_port()) as gateway:
        browser.do("open", {"url": gateway.start().url, "profile": "loser"})
        browser.do("create")
        browser.do("pay")
        session_id = browser.do("status", "active")
        browser.do("go", f"memory/{session_id}")
        for text in notes:
            browser.do("fill", {"label": "Write a note", "text": text})
            browser.do("click", "Store")
            browser.do("sees", text)
            browser.do("turnOff", "Encrypt it on this phone")
        exported = browser.do("download", "Export everything")["content"]
        for text in notes:
            browser.do("removeNote", text)
        gateway.terminate()
        with sqlite3.connect(tmp_path / "data" / LEDGER_FILE) as connection:  # as a node's loss is noted
            connection.execute("UPDATE sessions SET emptied_at = 1764500000.25")
        gateway.start()
        browser.do("reload")
        browser.do("go", f"node/{session_id}")
        browser.do("sees", "began again elsewhere")
        browser.do("follow", "Put back what you exported")
        cut = exported[: exported.index("\n") + 1]
        for content, seen in ((cut, "1 note is there again."), (exported, "2 notes are there again.")):
            browser.do("attach", {"label": "Your export", "name": "memory.ndjson", "content": content})
            browser.do("click", "Put an export back")
            browser.do("sees", seen)
            browser.do("go", f"node/{session_id}")
            browser.do("sees", "is gone" if content == cut else "is there again")
            browser.do("go", f"memory/{session_id}")
        browser.do("sees", "2 notes, intact")
        assert sorted(browser.do("notes")) == sorted(notes)
