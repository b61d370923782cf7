"""A gateway that lies, and signs its lies with its own key: it gets no signature that it should not get, and runs
nothing."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.hotkeys import Keypair, wallet
from engram.payments import pay_links
from engram.payments.pay_links import PayLink
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, needs_app, open_browser

pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]

SEED = hashlib.sha256(b"a gateway that lies").digest()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Browser]]:
    folder = tmp_path_factory.mktemp("phone")
    key = folder / "hotkey"
    wallet.write_hotkey_file(key, Keypair.from_seed(SEED))
    settings = FAST + f"[gateway]\nhotkey_file = '{key}'\n"
    with GatewayProcess(Path(folder) / "data", settings=settings) as gateway, open_browser() as browser:
        yield gateway.start().url, browser


OFFERS = {
    "amount": ("offer => { offer.accepts[0].maxAmountRequired = '100001'; return offer; }", "Amount: $0.10 was shown"),
    "network": ("offer => { offer.accepts[0].network = 'base'; return offer; }", "Network: engram-play was shown"),
    "token": ("offer => { offer.accepts[0].asset = '0x' + '11'.repeat(20); return offer; }", "Token:"),
    "decimals": (
        "offer => { offer.accepts[0].maxAmountRequired = '100000000000000000'; return offer; }",
        "Amount: $0.10 was shown",
    ),
    "validity": ("offer => { offer.accepts[0].maxTimeoutSeconds = 31536000; return offer; }", "Validity:"),
    "none": ("offer => ({ ...offer, accepts: [] })", "Offers:"),
    "huge": ("offer => ({ ...offer, junk: 'x'.repeat(2_000_000) })", "could not be read"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_that_was_not_shown_is_named_and_not_signed(shop: tuple[str, Browser], name: str) -> None:
    url, browser = shop
    change, said = OFFERS[name]
    before = browser.do("payments")
    browser.do("open", {"url": url, "profile": name})
    browser.do("create")
    browser.do("lie", {"method": "POST", "path": "/sessions", "seed": SEED.hex(), "change": change})
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("sees", said)
    assert browser.do("payments") == before
    browser.do("close", name)


def test_another_recipient_than_at_first_is_named_and_not_signed(shop: tuple[str, Browser]) -> None:
    url, browser = shop
    before = browser.do("payments")
    browser.do("open", {"url": url, "profile": "recipient"})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Cancel")
    change = "offer => { offer.accepts[0].payTo = '0x' + '66'.repeat(20); return offer; }"
    browser.do("lie", {"method": "POST", "path": "/sessions", "seed": SEED.hex(), "change": change})
    browser.do("click", "Review and pay")
    browser.do("sees", "0x6666666666666666666666666666666666666666 was offered")
    browser.do("sees", "Ask the operator")
    assert browser.do("disabled", "Confirm the payment")
    assert browser.do("payments") == before
    browser.do("click", "It was: pay the new address")
    browser.do("enabled", "Pay $0.10")
    browser.do("says", "0x6666666666666666666666666666666666666666")
    browser.do("click", "Cancel")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")  # it is the known one from now on
    browser.do("close", "recipient")


def test_an_unsigned_offer_is_not_believed(shop: tuple[str, Browser]) -> None:
    url, browser = shop
    before = browser.do("payments")
    browser.do("open", {"url": url, "profile": "unsigned"})
    browser.do("create")
    browser.do(
        "lie", {"method": "POST", "path": "/sessions", "seed": SEED.hex(), "change": "offer => offer", "unsigned": True}
    )
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("sees", "was not signed")
    assert browser.do("payments") == before
    browser.do("close", "unsigned")


def test_a_link_to_another_order_than_was_shown_is_not_handed_on(shop: tuple[str, Browser]) -> None:
    url, browser = shop
    link = PayLink(
        id="1f" * 16,
        controller="2a" * 32,
        tier="lite",
        hours=1.0,
        seconds=3_600.0,
        session_id=None,
        network="eip155:31337",
        amount=900_000,
        pay_to="66" * 20,
        expires_at=2_000_000_000,
    )
    changed = f"order => ({{ ...order, order: '{pay_links.seal(link, Keypair.from_seed(SEED))}' }})"
    browser.do("open", {"url": url, "profile": "link"})
    browser.do("create")
    browser.do("lie", {"method": "POST", "path": "/orders", "seed": SEED.hex(), "change": changed})
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Pay with another wallet, by a link")
    browser.do("sees", "Amount: $0.10 was shown, $0.90 was offered")
    browser.do("close", "link")


def test_a_gateway_with_another_key_stops_everything(shop: tuple[str, Browser]) -> None:
    url, browser = shop
    browser.do("open", {"url": url, "profile": "pinned"})
    browser.do("create")
    other = Keypair.from_seed(hashlib.sha256(b"another").digest()).ss58
    change = f"identity => ({{ ...identity, hotkey: '{other}' }})"
    browser.do("lie", {"method": "GET", "path": "/identity", "seed": SEED.hex(), "change": change})
    browser.do("evaluate", "document.dispatchEvent(new Event('visibilitychange'))")
    browser.do("sees", "Another gateway answers here")
    browser.do("close", "pinned")


def test_markup_in_every_text_of_the_gateway_is_shown_and_not_run(shop: tuple[str, Browser]) -> None:
    url, browser = shop
    evil = "'<img src=x onerror=\"document.title=1;window.run=1\"><script>window.run=1</script>'"
    walk = f"""(function walk(value) {{
      if (Array.isArray(value)) return value.map(walk);
      if (typeof value === 'string') return {evil};
      if (value === null || typeof value !== 'object') return value;
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, walk(each)]));
    }})"""
    browser.do("open", {"url": url, "profile": "markup"})
    browser.do("create")
    for path in ("/tiers", "/nodes", "/terms", "/app/config.json"):
        browser.do("lie", {"method": "GET", "path": path, "seed": SEED.hex(), "change": walk})
    browser.do("evaluate", "document.dispatchEvent(new Event('visibilitychange'))")
    browser.do("sees", "onerror")
    for route in ("start", "wallet", "settings", ""):
        browser.do("go", route)
        browser.do("settled")
    assert browser.do("evaluate", "window.run ?? null") is None
    assert browser.do("evaluate", "document.querySelectorAll('img, main script').length") == 0
    browser.do("close", "markup")
