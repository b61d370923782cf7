"""Pay links in the app: made by one person, paid once by another one's wallet, and believed only as the gateway made
them."""

import base64
import json
from collections.abc import Iterator

import pytest
from eth_account import Account

from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, needs_app, open_browser

pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]

PLAY_CHAIN = "0x7a69"
SHOWN_LINK = "[...document.querySelectorAll('dialog .mono')].at(-1).textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("phone")
    with GatewayProcess(folder / "data", settings=FAST) as started:
        yield started.start()


def make_link(browser: Browser, url: str, profile: str) -> str:
    """Make a link in a profile of its own; return the part of it that opens in the app."""
    browser.do("open", {"url": url, "profile": profile})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Pay with another wallet, by a link")
    browser.do("sees", "Waiting for the payment.")
    link: str = browser.do("evaluate", SHOWN_LINK)
    assert link.startswith(f"{url}/app/#/pay/")
    return "#" + link.partition("#")[2]


def wallet(secret: str, **more: object) -> dict[str, object]:
    return {"secret": "0x" + secret * 32, "chainId": PLAY_CHAIN, "on": PLAY_CHAIN, **more}


def pay(browser: Browser, address: str) -> None:
    browser.do("click", "Fake Wallet")
    browser.do("sees", address)
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Pay $0.10")
    browser.do("says", "Paid")


def test_another_wallet_pays_once_and_the_node_is_of_the_one_who_made_the_link(
    gateway: GatewayProcess, browser: Browser
) -> None:
    url = gateway.url
    link = make_link(browser, url, "maker")
    address = Account.from_key("0x" + "61" * 32).address
    browser.do("open", {"url": url, "profile": "payer", "route": link, "wallet": wallet("61", declines=1)})
    browser.do("sees", "The node belongs to whoever made this link")
    assert browser.do("axe") == []
    assert browser.do("layout")["overflow"] <= 0
    browser.do("click", "Fake Wallet")
    browser.do("enabled", "Pay $0.10")
    browser.do("click", "Pay $0.10")
    browser.do("sees", "You declined it in the wallet")
    pay(browser, address)
    browser.do("reload")
    browser.do("says", "Paid")
    browser.do("open", {"url": url, "profile": "second payer", "route": link, "wallet": wallet("62")})
    browser.do("sees", "This link is paid already")
    assert not browser.do("evaluate", "[...document.querySelectorAll('button')].some(b => /^Pay/.test(b.innerText))")
    browser.do("turn", "maker")
    browser.do("status", "active")
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")


def test_a_link_outlives_a_reload_and_pays_by_a_clock_that_is_off(gateway: GatewayProcess, browser: Browser) -> None:
    link = make_link(browser, gateway.url, "patient")
    browser.do("reload")
    browser.do("sees", "A pay link is open")
    browser.do("click", "Show it")
    browser.do("sees", "Waiting for the payment.")
    late = {"url": gateway.url, "profile": "late payer", "route": link, "wallet": wallet("63"), "clockOffMs": -420_000}
    browser.do("open", late)
    pay(browser, Account.from_key("0x" + "63" * 32).address)
    browser.do("turn", "patient")
    browser.do("status", "active")


def test_a_link_that_was_changed_is_refused_before_a_wallet_is_called(
    gateway: GatewayProcess, browser: Browser
) -> None:
    link = make_link(browser, gateway.url, "honest")
    content, _, signature = link.removeprefix("#/pay/").partition(".")
    order = json.loads(base64.urlsafe_b64decode(content + "=="))
    order["pay_to"] = "66" * 20
    forged = base64.urlsafe_b64encode(json.dumps(order, separators=(",", ":")).encode()).decode().rstrip("=")
    before = browser.do("payments")
    for name, text in (("forged", f"{forged}.{signature}"), ("cut", link.removeprefix("#/pay/")[:-9]), ("none", "x")):
        opened = {"url": gateway.url, "profile": name, "route": f"#/pay/{text}", "wallet": wallet("64")}
        browser.do("open", opened)
        browser.do("sees", "This is no pay link of this gateway")
    assert browser.do("payments") == before


def test_a_browser_without_a_wallet_is_told_where_to_open_it(gateway: GatewayProcess, browser: Browser) -> None:
    link = make_link(browser, gateway.url, "sender")
    browser.do("open", {"url": gateway.url, "profile": "plain", "route": link})
    browser.do("sees", "This browser has no wallet")
    assert browser.do("axe") == []
    assert browser.do("layout")["overflow"] <= 0
