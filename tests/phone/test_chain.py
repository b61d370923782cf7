"""Payments of the app on a chain, by the official facilitator: each moves the money once, whatever breaks."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from eth_account import Account

from tests.evm import node, wire
from tests.evm.shop import RECIPIENT, Shop, open_shop
from tests.phone.browser import Browser, needs_app, open_browser
from tests.phone.test_links import make_link

pytestmark = [needs_app, node.needs_node, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]

PRICE = 100_000
FUNDS = 1_000_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("phone")) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@contextmanager
def buyer(shop: Shop, browser: Browser, profile: str) -> Iterator[str]:
    """Open the app with a new identity whose spending key owns some of the test's dollars; yield its words."""
    Account.enable_unaudited_hdwallet_features()
    browser.do("open", {"url": shop.url, "profile": profile})
    words = browser.do("create")
    address = Account.from_mnemonic(words).address
    shop.chain.mint(address, FUNDS)
    yield words
    assert shop.chain.transfers(address, RECIPIENT) == [PRICE]
    assert shop.chain.balance(address) == FUNDS - PRICE
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")
    browser.do("close", profile)


def test_a_payment_of_the_app_settles_on_the_chain(shop: Shop, browser: Browser) -> None:
    with buyer(shop, browser, "real"):
        browser.do("sees", "Test network")
        browser.do("pay")
        browser.do("status", "active")


def test_a_settlement_whose_answer_is_lost_is_paid_once_and_never_called_failed(shop: Shop, browser: Browser) -> None:
    shop.wire.faults["/settle"] = wire.once(wire.after(wire.cut))
    with buyer(shop, browser, "cut"):
        browser.do("pay")
        session_id = browser.do("opensNodeFrom", "")
        browser.do("go", f"node/{session_id}")
        browser.do("status", "active")
    shop.wire.mend()


def test_a_payment_that_no_block_has_taken_yet_is_pending_over_a_reload(shop: Shop, browser: Browser) -> None:
    with buyer_in_the_mempool(shop, browser, "slow") as words:
        browser.do("pay")
        browser.do("sees", "waiting for its confirmation")
        browser.do("reload")
        browser.do("go", "activity")
        browser.do("sees", "Waiting for confirmation")
        browser.do("go", "start")
        browser.do("sees", "Another payment is still open")
        assert browser.do("disabled", "Review and pay")
        browser.do("open", {"url": shop.url, "profile": "restored"})
        browser.do("restore", words)
        browser.do("go", "start")
        browser.do("sees", "Another payment is still open")
        assert browser.do("disabled", "Review and pay")
        browser.do("turn", "slow")
        shop.chain.automine(True)
        browser.do("go", "")
        session_id = browser.do("opensNodeFrom", "")
        browser.do("go", f"node/{session_id}")
        browser.do("status", "active")


@contextmanager
def buyer_in_the_mempool(shop: Shop, browser: Browser, profile: str) -> Iterator[str]:
    """As `buyer`, whose funds were mined before the chain stopped."""
    shop.chain.automine(True)
    with buyer(shop, browser, profile) as words:
        shop.chain.automine(False)
        try:
            yield words
        finally:
            shop.chain.automine(True)


def test_a_wallet_of_the_browser_pays_after_it_was_declined_twice(shop: Shop, browser: Browser) -> None:
    secret = "0x" + "77" * 32
    address = Account.from_key(secret).address
    shop.chain.mint(address, FUNDS)
    wallet = {"secret": secret, "declines": 2, "chainId": "0x14a34"}
    browser.do("open", {"url": shop.url, "profile": "wallet", "wallet": wallet})
    browser.do("create")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("click", "Fake Wallet")
    browser.do("sees", address)
    for _ in range(2):
        browser.do("enabled", "Pay $0.10")
        browser.do("click", "Pay $0.10")
        browser.do("sees", "You declined it in the wallet")
    browser.do("click", "Pay $0.10")
    browser.do("status", "active")
    assert shop.chain.transfers(address, RECIPIENT) == [PRICE]
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")


def test_a_pay_link_moves_the_money_of_the_wallet_that_paid_it_once(shop: Shop, browser: Browser) -> None:
    secret = "0x" + "78" * 32
    address = Account.from_key(secret).address
    shop.chain.mint(address, FUNDS)
    link = make_link(browser, shop.url, "link maker")
    wallet = {"secret": secret, "chainId": "0x14a34"}
    browser.do("open", {"url": shop.url, "profile": "link payer", "route": link, "wallet": wallet})
    browser.do("click", "Fake Wallet")
    browser.do("sees", address)
    browser.do("click", "Pay $0.10")
    browser.do("says", "Paid")
    assert shop.chain.transfers(address, RECIPIENT) == [PRICE]
    assert shop.chain.balance(address) == FUNDS - PRICE
    browser.do("turn", "link maker")
    browser.do("status", "active")
    browser.do("click", "Stop")
    browser.do("click", "Stop and delete")
    browser.do("status", "stopped")
