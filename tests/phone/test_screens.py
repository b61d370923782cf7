"""Every screen in both themes and sizes: nothing that axe finds, nothing clipped or moving, and the pictures that were
looked at.

ENGRAM_GOLDEN=1 takes the pictures again; with another Chromium than the one they came from they are not compared.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from engram.hotkeys import Keypair, wallet
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, needs_app, open_browser
from tests.phone.test_hostile import SEED
from tests.phone.test_links import SHOWN_LINK
from tests.phone.test_updates import WAKE

pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]

PUT_AWAY = "document.querySelectorAll('main details[open]').forEach((each) => (each.open = false))"
WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_SEED = b"\x11" * 32
GOLDEN = Path(__file__).parent / "golden"
CHROMIUM = GOLDEN / "chromium.txt"
WRITE = os.environ.get("ENGRAM_GOLDEN") == "1"
MOST_DIFFERENT = 0.004
"""The share of pixels that may differ."""
MOST_SHIFT = 0.02
PICTURED = 390
"""The width whose pictures are compared."""


def looks(browser: Browser, theme: str, width: int, keep: Path) -> Callable[[str], None]:
    """Return what looks at a screen: its accessibility, its layout, its picture; in `keep` it leaves what differs."""
    same = WRITE or (CHROMIUM.exists() and CHROMIUM.read_text().strip() == browser.do("version"))

    def look(name: str) -> None:
        layout = browser.do("layout")
        assert layout["overflow"] <= 0, name
        assert layout["shift"] <= MOST_SHIFT, (name, layout["moved"])
        assert browser.do("axe") == [], name
        if width != PICTURED:
            return
        path = GOLDEN / f"{name}-{theme}.png"
        pictures = {"path": str(path), "keep": str(keep), "most": MOST_DIFFERENT, "write": WRITE}
        different = browser.do("compare", pictures)
        assert different is not None, f"{path.name} is missing: look at it, with ENGRAM_GOLDEN=1"
        if not same:
            warnings.warn(UserWarning(f"{name}: another Chromium, {different:.2%} of the pixels differ"), stacklevel=1)
        else:
            assert different <= MOST_DIFFERENT, f"{name}: {different:.2%} of the pixels differ from {path.name}: {keep}"

    return look


@pytest.mark.filterwarnings("default:.*another Chromium:UserWarning")
@pytest.mark.parametrize(
    ("theme", "width", "height"),
    [
        ("light", 390, 844),
        ("dark", 390, 844),
        pytest.param("light", 1280, 800, marks=pytest.mark.nightly),
        pytest.param("dark", 1280, 800, marks=pytest.mark.nightly),
    ],
)
def test_every_screen_is_as_it_was_looked_at(tmp_path: Path, theme: str, width: int, height: int) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        page = {"url": gateway.start().url, "theme": theme, "width": width, "height": height, "font": True}
        browser.do("open", page)
        look = looks(browser, theme, width, tmp_path)
        if WRITE:
            GOLDEN.mkdir(exist_ok=True)
            CHROMIUM.write_text(browser.do("version") + "\n")
        browser.do("sees", "Create a new identity")
        look("welcome")
        browser.do("reload")
        browser.do("click", "Create a new identity")
        browser.do("sees", "Write these 12 words")
        look("words")
        browser.do("click", "I wrote them down")
        browser.do("sees", "Type these three words")
        look("check")
        browser.do("reload")
        browser.do("click", "I have one already")
        browser.do("sees", "Your 12 or 24 words")
        look("restore")
        browser.do("reload")
        browser.do("restore", WORDS)
        for route, text in (("", "No node is running"), ("activity", "Nothing yet"), ("security", "No web app")):
            browser.do("go", route)
            browser.do("sees", text)
            look(f"{route or 'nodes'}-empty")
            browser.do("reload")
        browser.do("go", "start")
        browser.do("sees", "Standard")
        look("start")
        browser.do("reload")
        browser.do("click", "Review and pay")
        browser.do("enabled", "Pay $0.10")
        look("pay")
        browser.do("click", "Pay with another wallet, by a link")
        browser.do("sees", "Waiting for the payment.")
        link = browser.do("evaluate", SHOWN_LINK).partition("#")[2]
        look("link")
        browser.do("reload")
        browser.do("evaluate", f"location.hash = '{link}'")
        browser.do("sees", "The node belongs to whoever made this link")
        browser.do("enabled", "Spending key")
        look("pay-link")
        browser.do("go", "start")
        browser.do("reload")
        browser.do("pay")
        session_id = browser.do("status", "active")
        browser.do("sees", "Started.")  # how it started is put away when the node is looked at again
        browser.do("go", "")
        browser.do("reload")
        browser.do("sees", "Time left")
        look("nodes")
        for route, text in (
            (f"node/{session_id}", "Queries today"),
            (f"extend/{session_id}", "without a break"),
            (f"memory/{session_id}", "Nothing is stored yet"),
            ("wallet", "Neurons"),
            ("settings", "Language"),
            ("activity", "Paid"),
        ):
            browser.do("reload")
            browser.do("go", route)
            browser.do("sees", text)
            if route.startswith("node/"):
                browser.do("says", "Live")
            browser.do("settle")
            look(route.partition("/")[0])
        browser.do("reload")
        browser.do("go", f"node/{session_id}")
        browser.do("status", "active")
        browser.do("says", "Live")
        browser.do("evaluate", PUT_AWAY)  # open where the app has not read its steps back yet
        browser.do("click", "Stop")
        browser.do("sees", "Stop this node?")
        look("stop")
        browser.do("reload")
        browser.do("status", "active")
        browser.do("click", "Stop")
        browser.do("click", "Stop and delete")
        browser.do("status", "stopped")
        browser.do("sees", "You stopped it")
        look("stopped")


PENDING = """answer => answer.code === 'accepted'
  ? { ...answer, code: 'payment_pending', payment_status: 'settling', status: 'payment_pending' } : answer"""
NOTES = ("Late frost ruined most of the vineyard.", "Donaudampfschifffahrtsgesellschaftskapitän " * 3)


@pytest.mark.filterwarnings("default:.*another Chromium:UserWarning")
@pytest.mark.nightly
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_seldom_seen_is_as_it_was_looked_at(tmp_path: Path, theme: str) -> None:
    wallet.write_hotkey_file(key := tmp_path / "hotkey", Keypair.from_seed(SEED))
    settings = FAST + f"[gateway]\nhotkey_file = '{key}'\n[facilitator]\nopening_balance_usd = 0.15\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway, open_browser() as browser:
        page = {"url": gateway.start().url, "theme": theme, "font": True}
        look = looks(browser, theme, PICTURED, tmp_path)
        browser.do("open", page)
        browser.do("click", "I have one already")
        for by, text in (("File", "Keystore file of polkadot-js"), ("Code", "It works once")):
            browser.do("click", by)
            browser.do("sees", text)
            look(f"restore-{by.lower()}")
            browser.do("reload")
            browser.do("click", "I have one already")
        browser.do("reload")
        browser.do("restore", WORDS)
        _look_at_a_node_with_notes(browser, look)
        browser.do("go", "wallet")
        browser.do("reload")
        browser.do("click", "Show a one-time code")
        browser.do("sees", "Works once")
        look("code")
        browser.do("reload")
        browser.do("click", "Forget this identity on this device")
        browser.do("sees", "Forget this identity here?")
        look("forget")
        browser.do("reload")
        browser.do("pay")
        browser.do("sees", "Nothing was charged")
        look("payment-refused")
        browser.do("go", "")
        browser.do("reload")
        browser.do("sees", "Time left")
        browser.do("worker")
        browser.do("offline", True)
        browser.do("evaluate", WAKE)
        browser.do("sees", "No connection to the gateway")
        look("offline")
        browser.do("offline", False)
        browser.do("go", "wallet")
        browser.do("reload")
        browser.do("fill", {"label": "New passphrase", "text": "correct horse"})
        browser.do("click", "Set a passphrase")
        browser.do("sees", "A passphrase opens it")
        browser.do("reload")
        browser.do("sees", "Locked")
        look("lock")
        browser.do("open", page | {"profile": "unknown"})
        browser.do("create")
        browser.do("lose", {"method": "POST", "path": "/sessions", "paid": True, "times": 99})
        browser.do("pay")
        browser.do("sees", "The payment may have arrived")
        look("payment-unknown")
        browser.do("close", "unknown")
        browser.do("open", page | {"profile": "pending"})
        browser.do("create")
        browser.do("lie", {"method": "POST", "path": "/sessions", "seed": SEED.hex(), "change": PENDING})
        browser.do("pay")
        browser.do("sees", "waiting for its confirmation. Nothing to do")
        look("payment-pending")
        browser.do("close", "pending")
        browser.do("open", page | {"profile": "changed"})
        browser.do("create")
        change = f"identity => ({{ ...identity, hotkey: '{Keypair.from_seed(OTHER_SEED).ss58}' }})"
        browser.do("lie", {"method": "GET", "path": "/identity", "seed": SEED.hex(), "change": change})
        browser.do("evaluate", WAKE)
        browser.do("sees", "Another gateway answers here")
        look("changed")
        browser.do("close", "changed")
        port = gateway.url.rpartition(":")[2]
        browser.do("open", page | {"url": f"http://shop.example:{port}", "profile": "plain http"})
        browser.do("sees", "This address is not encrypted")
        look("insecure")
        browser.do("close", "plain http")
        browser.do("open", page | {"url": gateway.ops_url, "path": "/", "profile": "operator"})
        browser.do("sees", "payment_verifier")
        browser.do("sees", "live")
        browser.do("gone", "provisioning")
        look("ops")


def _look_at_a_node_with_notes(browser: Browser, look: Callable[[str], None]) -> None:
    browser.do("pay")
    session_id = browser.do("status", "active")
    browser.do("sees", "Started.")
    browser.do("evaluate", "document.querySelector('details').scrollIntoView()")
    look("started")
    browser.do("go", f"memory/{session_id}")
    browser.do("reload")
    for text in NOTES:
        browser.do("fill", {"label": "Write a note", "text": text})
        browser.do("click", "Store")
        browser.do("sees", text.strip())
    browser.do("sees", "2 notes, intact")
    browser.do("reload")
    browser.do("sees", "2 notes, intact")
    browser.do("sees", NOTES[0])
    browser.do("settle")
    look("memory-notes")
    browser.do("reload")
    browser.do("sees", "2 notes, intact")
    browser.do("click", "Delete")
    browser.do("sees", "Delete this note?")
    look("memory-delete")


@pytest.mark.parametrize(("width", "height"), [(390, 500), (1280, 500)])
def test_a_notice_that_comes_unasked_moves_nothing_and_hides_nothing(tmp_path: Path, width: int, height: int) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        browser.do("open", {"url": gateway.start().url, "width": width, "height": height})
        browser.do("restore", WORDS)
        browser.do("go", "settings")
        browser.do("worker")
        browser.do("reload")
        browser.do("sees", "Language")
        browser.do("settle")
        before = browser.do("layout")["shift"]
        browser.do("offline", True)
        browser.do("evaluate", WAKE)
        browser.do("sees", "No connection to the gateway")
        layout = browser.do("layout")
        assert (layout["shift"] - before, layout["overflow"]) == (0, 0), layout["moved"]
        assert browser.do("axe") == []
        browser.do("evaluate", "scrollTo(0, document.documentElement.scrollHeight)")
        assert browser.do("evaluate", CLEAR_OF_THE_NOTICE)
        browser.do("offline", False)
        browser.do("gone", "No connection to the gateway")
        browser.do("go", "start")
        browser.do("sees", "Standard")
        browser.do("settle")
        before = browser.do("layout")["shift"]
        browser.do("offline", True)
        browser.do("evaluate", WAKE)
        browser.do("sees", "No connection to the gateway")
        layout = browser.do("layout")
        assert layout["shift"] - before <= MOST_SHIFT, layout["moved"]
        assert browser.do("evaluate", CLEAR_OF_THE_NOTICE)  # the sum and its button, which stay at the lower end


def test_what_becomes_of_a_payment_does_not_move_its_sheet(tmp_path: Path) -> None:
    settings = FAST + "[facilitator]\nopening_balance_usd = 0.05\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway, open_browser() as browser:
        url = gateway.start().url
        for profile, lost, said in (("refused", 0, "Nothing was charged"), ("unknown", 99, "may have arrived")):
            browser.do("open", {"url": url, "profile": profile, "font": True})
            browser.do("create")
            browser.do("lose", {"method": "POST", "path": "/sessions", "paid": True, "times": lost})
            browser.do("go", "start")
            browser.do("click", "Review and pay")
            browser.do("enabled", "Pay $0.10")
            before = browser.do("evaluate", SHEET_TOP)
            browser.do("click", "Pay $0.10")
            browser.do("sees", said)
            after = browser.do("evaluate", SHEET_TOP)
            assert abs(after - before) <= MOST_MOVED_PX, (profile, before, after)
            browser.do("close", profile)


SHEET_TOP = "document.querySelector('dialog').getBoundingClientRect().top"
MOST_MOVED_PX = 12
"""Of 844: moved by that much, a sheet of the window's width is below a shift of 0.02."""
CLEAR_OF_THE_NOTICE = """document.querySelector('main').lastElementChild.getBoundingClientRect().bottom
  <= document.querySelector('.notices').lastElementChild.getBoundingClientRect().top"""


def test_axe_is_at_work(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        browser.do("open", {"url": gateway.start().url})
        browser.do("sees", "Create a new identity")
        browser.do("evaluate", "document.querySelector('main').append(document.createElement('button'))")
        assert "button-name" in browser.do("axe")[0]


def test_texts_at_twice_their_size_and_from_right_to_left_are_not_clipped(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        browser.do("open", {"url": gateway.start().url})
        browser.do("restore", WORDS)
        browser.do("evaluate", "document.documentElement.style.fontSize = '200%'")
        for direction in ("ltr", "rtl"):
            browser.do("evaluate", f"document.documentElement.dir = '{direction}'")
            for route in ("", "start", "wallet", "activity", "settings", "security"):
                browser.do("go", route)
                browser.do("settle")
                assert browser.do("layout")["overflow"] <= 0, (direction, route)
                assert browser.do("axe") == [], (direction, route)


def test_long_words_and_names_are_neither_clipped_nor_wider_than_the_window(tmp_path: Path) -> None:
    settings = FAST + f"[phone]\nname = '{'W' * 40}'\n"
    with GatewayProcess(tmp_path / "data", settings=settings) as gateway, open_browser() as browser:
        browser.do("open", {"url": gateway.start().url, "width": 320, "height": 640})
        browser.do("create")
        browser.do("pay")
        session_id = browser.do("status", "active")
        browser.do("go", f"memory/{session_id}")
        browser.do("fill", {"label": "Write a note", "text": "Donaudampfschifffahrt" * 20})
        browser.do("click", "Store")
        browser.do("sees", "Donaudampfschifffahrt" * 20)
        for language in ("en", "de"):
            browser.do("go", "settings")
            browser.do("settle")
            browser.do("evaluate", CHOOSE.format(language))
            for route in ("", "start", f"node/{session_id}", f"memory/{session_id}", "wallet", "activity", "settings"):
                browser.do("go", route)
                browser.do("settle")
                assert browser.do("layout")["overflow"] <= 0, (language, route)


CHOOSE = """(() => {{ const chosen = document.querySelector('select'); chosen.value = '{}';
  chosen.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"""


def test_the_other_language_is_whole_and_kept(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        browser.do("open", {"url": gateway.start().url})
        browser.do("restore", WORDS)
        browser.do("go", "settings")
        browser.do("sees", "Language")
        browser.do("choose", {"label": "Language", "value": "de"})
        browser.do("sees", "Einstellungen")
        browser.do("reload")
        browser.do("sees", "Sprache")
        assert browser.do("evaluate", "document.documentElement.lang") == "de"
        browser.do("go", "start")
        browser.do("sees", "Du zahlst")
        assert browser.do("axe") == []


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1280)])
def test_the_operators_page_is_live_and_accessible(tmp_path: Path, theme: str, width: int) -> None:
    with GatewayProcess(tmp_path / "data", settings=FAST) as gateway, open_browser() as browser:
        gateway.start()
        browser.do("open", {"url": gateway.ops_url, "path": "/", "theme": theme, "width": width})
        for text in ("Engram gateway", "Money today", "payment_verifier", "live"):
            browser.do("sees", text)
        assert browser.do("axe") == []
        assert browser.do("layout")["overflow"] <= 0
        assert browser.do("said") == []
        gateway.kill()
        browser.do("sees", "s old")
